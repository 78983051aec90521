import { expect } from 'chai';
import type { BumpEvent } from '../../lib/index.js';
import { lendCache } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis } from '../support/redis.js';
import { rejection } from '../support/rejection.js';

/** More than two commands of a bump, which carry 1,000 scopes each. */
const IDS = Array.from({ length: 2_500 }, (_, item) => ({ item }));
const PATHS = IDS.map(({ item }) => `item=${item}`);

describe('bumpMany of more scopes than one command carries', () => {
  /** A cache that holds `old` for every id, while the source holds `new`. */
  async function lendOutdated(options: { url?: string; bumpDeadlineMs?: number } = {}) {
    const rows = new Map<number, unknown>(IDS.map(({ item }) => [item, 'old']));
    const lent = lendCache({ ...options, rows, readDeadlineMs: 10_000 });
    await lent.value.fetchMany(IDS);
    await lent.cache.settled();
    for (const { item } of IDS) rows.set(item, 'new');
    const bumps: BumpEvent[] = [];
    lent.cache.on('bump', (event) => bumps.push(event));
    const generationKey = (item: number) => `gencache:{${lent.name}:0}:g:item=${item}`;
    return { ...lent, bumps, generationKey };
  }

  /** The ids that the cache still answers with old values. */
  async function stale({ value }: Awaited<ReturnType<typeof lendOutdated>>): Promise<number[]> {
    const values = await value.fetchMany(IDS);
    return IDS.map(({ item }) => item).filter((item) => values[item] !== 'new');
  }

  describe('when one of the first scopes has a malformed generation', () => {
    it('deletes the value, warns of it, and bumps all other scopes', async () => {
      const lent = await lendOutdated();
      await lendRedis().set(lent.generationKey(5), 'not a generation', 'PX', 60_000);
      const warnings: string[] = [];
      lent.cache.on('warning', ({ message }) => warnings.push(message));
      await lent.items.bumpMany(IDS);
      expect(await lendRedis().exists(lent.generationKey(5))).to.equal(0);
      expect(warnings).to.deep.equal([
        'A bump deleted 1 foreign value at the keys of generations, first that of item=5. Readers load again. Find the ' +
          'program that writes there, unless a later release runs beside this one.',
      ]);
      expect(await stale(lent)).to.deep.equal([]);
      expect(lent.bumps).to.have.length(1);
      expect(lent.bumps[0]).to.include({ bumps: 2_500, moved: 2_500, error: undefined });
    });
  });

  describe('when several commands fail', () => {
    it('rejects once, and names every scope', async () => {
      const server = await privateRedis();
      const proxy = await startProxy(server.port);
      const lent = await lendOutdated({ url: proxy.url, bumpDeadlineMs: 100 });
      let isDown = false;
      lent.cache.on('storeFailure', ({ operation }) => (isDown ||= operation === 'connection'));
      proxy.refuse();
      proxy.cut();
      await eventually(() => expect(isDown).to.equal(true));
      const error = await rejection(lent.items.bumpMany(IDS));
      expect(error).to.deep.include({ outcome: 'not_sent', paths: PATHS });
      expect(error.message).to.match(
        /^3 commands of one bump failed\. The first: Bump of 1000 scopes \(item\) failed; the command was not sent: /,
      );
      expect(error.cause).to.deep.include({ code: 'BUMP', paths: PATHS.slice(0, 1_000) });
      expect(lent.cache.statistics.total('failed_bumps')).to.equal(1);
    });

    it('reports the outcome as unknown if one of them may have been carried out', async () => {
      const server = await privateRedis();
      const proxy = await startProxy(server.port);
      const lent = await lendOutdated({ url: proxy.url, bumpDeadlineMs: 200 });
      const direct = lendRedis({ url: server.url });
      const before = await direct.get(lent.generationKey(0));
      proxy.holdReplies();
      const bumping = rejection(lent.items.bumpMany(IDS));
      await eventually(async () => expect(await direct.get(lent.generationKey(0))).to.not.equal(before));
      proxy.refuse(); // the second and third command find no server
      proxy.cut(); // the first command was carried out, and its reply is lost
      const error = await bumping;
      expect(error).to.deep.include({ outcome: 'unknown', paths: PATHS });
      expect(error.message).to.match(
        /^3 commands of one bump failed\. The first: Bump of 1000 scopes \(item\) failed; the outcome is unknown: /,
      );

      proxy.releaseReplies();
      await proxy.accept();
      await eventually(() => lent.items.bumpMany(IDS)); // the remedy is another bump
      expect(await stale(lent)).to.deep.equal([]);
    });
  });
});
