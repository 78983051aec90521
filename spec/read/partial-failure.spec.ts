import { expect } from 'chai';
import type { StoreFailureEvent } from '../../lib/index.js';
import { lendCache } from '../support/cache.js';
import { lendRedis, privateRedis } from '../support/redis.js';

describe('a batch that fails in part', () => {
  const upTo = (n: number) => Array.from({ length: n }, (_, item) => ({ item }));

  /** A cache that holds the first `n` items, on a private server, while the source holds newer values. */
  async function lendWarm(n: number) {
    const server = await privateRedis();
    const rows = new Map<number, unknown>(upTo(n).map(({ item }) => [item, 'cached']));
    const lent = lendCache({ readDeadlineMs: 10_000, url: server.url, rows });
    await lent.value.fetchMany(upTo(n));
    await lent.cache.settled();
    lent.loads.length = 0;
    for (const item of rows.keys()) rows.set(item, 'loaded');
    const failures: StoreFailureEvent[] = [];
    lent.cache.on('storeFailure', (event) => failures.push(event));
    return { ...lent, server, failures };
  }

  describe('since the server has no memory left for a new generation', () => {
    async function lendFull(n: number) {
      const lent = await lendWarm(n);
      const admin = lendRedis({ url: lent.server.url });
      await admin.config('SET', 'maxmemory-policy', 'noeviction');
      await admin.config('SET', 'maxmemory', '1');
      lent.rows.set(-1, 'loaded');
      return lent;
    }

    it('keeps the hits of the same turn, and reads only the new scope from the source', async () => {
      const { value, cache, loads, failures } = await lendFull(2);
      const answers = await Promise.all([-1, 0, 1].map((item) => value.fetch({ item })));
      expect(answers).to.deep.equal(['loaded', 'cached', 'cached']);
      expect(loads).to.deep.equal([[-1]]);
      expect(cache.statistics.total('hits')).to.equal(2);
      expect(cache.statistics.total('bypasses')).to.equal(1);
      expect(cache.statistics.total('store_failures', { operation: 'mint' })).to.equal(1);
      expect(failures).to.have.length(1);
      expect(failures[0]!.error.message).to.contain('OOM command not allowed');
    });

    it('keeps the hits of its other commands', async () => {
      const { value, cache, loads } = await lendFull(2_500);
      const answers = await value.fetchMany([{ item: -1 }, ...upTo(2_500)]);
      expect(loads).to.deep.equal([[-1]]);
      expect(answers.filter((answer) => answer === 'cached')).to.have.length(2_500);
      expect(cache.statistics.total('store_failures')).to.equal(1);
    });
  });

  describe('since the server stopped answering', () => {
    it('waits for one deadline, not for one per command', async () => {
      const { server, cache } = await lendWarm(5_000);
      // Another process with the same entries, and a shorter deadline.
      const rows = new Map(upTo(5_000).map(({ item }) => [item, 'loaded']));
      const impatient = lendCache({ name: cache.name, url: server.url, readDeadlineMs: 50, rows });
      await impatient.value.lookup({ item: 0 }); // connected
      const bypasses = impatient.cache.statistics.total('bypasses');
      const failures: StoreFailureEvent[] = [];
      impatient.cache.on('storeFailure', (event) => failures.push(event));
      server.pause();
      const answers = await impatient.value.fetchMany(upTo(5_000));
      server.resume();
      expect(answers.every((answer) => answer === 'loaded')).to.equal(true);
      expect(failures.map(({ operation }) => operation)).to.deep.equal([
        'read', // the first thousand
      ]);
      expect(impatient.cache.statistics.total('bypasses')).to.equal(bypasses + 5_000);
    });
  });
});
