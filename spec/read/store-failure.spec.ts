import { expect } from 'chai';
import { BumpError, type StoreFailureEvent } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { lendCache } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis, uniqueName } from '../support/redis.js';
import { AskedStore } from '../ports/asked-store.js';

describe('when Redis fails', () => {
  async function lendFailing(options: { readDeadlineMs?: number; bumpDeadlineMs?: number } = {}) {
    const server = await privateRedis();
    const proxy = await startProxy(server.port);
    for (;;) {
      const store = redisStore(lendRedis({ url: proxy.url, lazyConnect: true }));
      await new AskedStore(store, uniqueName()).timeMs(); // connected
      const lent = lendCache({ readDeadlineMs: 100, ...options, store, rows: new Map([[1, 'one']]) });
      const failures: StoreFailureEvent[] = [];
      lent.cache.on('storeFailure', (event) => failures.push(event));
      expect(await lent.value.fetch({ item: 1 })).to.equal('one');
      await lent.cache.settled();
      // On a busy machine the first read may miss its deadline, so that nothing is stored: then another cache.
      if (lent.cache.statistics.total('fills') === 1) return { ...lent, server, proxy, failures };
    }
  }

  it('a read without a reply goes to the source after its deadline, and counts as a bypass', async () => {
    const { server, value, cache, rows, failures } = await lendFailing();
    server.pause();
    rows.set(1, 'newer');
    expect(await value.fetch({ item: 1 })).to.equal('newer');
    expect(cache.statistics.total('bypasses')).to.equal(1);
    expect(cache.statistics.total('store_failures', { operation: 'read' })).to.equal(1);
    expect(failures[0]!.error).to.deep.include({ code: 'DEADLINE', limitMs: 100 });
    expect(failures[0]!.error.message).to.equal(
      'A read must be answered by the store within 100 ms, and was not. ' +
        'Look at the load of the store and of this event loop, or raise the deadline.',
    );
    server.resume();
  });

  it('a bypass does not fill, and reads use the cache again when Redis is back', async () => {
    const { server, value, cache, rows, loads } = await lendFailing();
    server.pause();
    rows.set(1, 'never stored');
    await value.fetch({ item: 1 });
    server.resume();
    await eventually(async () => {
      const before = loads.length;
      expect(await value.fetch({ item: 1 })).to.equal('one');
      expect(loads).to.have.length(before);
    });
    expect(cache.statistics.total('fills')).to.equal(1);
  });

  it('reads continue while no server listens, and hit again soon after a restart', async () => {
    const { server, proxy, value, loads } = await lendFailing({ readDeadlineMs: 20 });
    proxy.refuse();
    proxy.cut();
    for (let i = 0; i < 5; i++) expect(await value.fetch({ item: 1 })).to.equal('one');
    expect(loads).to.have.length(6);
    await server.restart();
    await proxy.accept();
    await eventually(async () => {
      const before = loads.length;
      expect(await value.fetch({ item: 1 })).to.equal('one');
      expect(loads).to.have.length(before);
    });
  });

  it('a read whose connection breaks does not wait for its deadline', async () => {
    const { proxy, value, failures } = await lendFailing({ readDeadlineMs: 10_000 });
    proxy.holdReplies();
    const read = value.fetch({ item: 1 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    proxy.cut();
    expect(await read).to.equal('one');
    expect(failures.map(({ operation }) => operation)).to.include('read');
    expect(failures.every(({ error }) => (error as { code?: string }).code !== 'DEADLINE')).to.equal(true);
  });

  it('reads of one turn share a load even as bypasses', async () => {
    const { server, value, loads } = await lendFailing();
    server.pause();
    await Promise.all([
      value.fetch({ item: 1 }),
      value.fetch({ item: 1 }),
      value.fetchMany([{ item: 1 }, { item: 2 }]),
    ]);
    expect(loads).to.deep.equal([[1], [1, 2]]);
    server.resume();
  });

  it('a later reader never joins a bypass', async () => {
    const { server, value, loads, hold, rows } = await lendFailing({ readDeadlineMs: 20 });
    server.pause();
    const release = hold();
    const early = value.fetch({ item: 1 });
    await eventually(() => expect(loads).to.have.length(2));
    rows.set(1, 'committed meanwhile');
    const late = value.fetch({ item: 1 });
    await eventually(() => expect(loads).to.have.length(3));
    release();
    expect(await early).to.equal('one');
    expect(await late).to.equal('committed meanwhile');
    server.resume();
  });

  it('a bump without a reply rejects with an unknown outcome', async () => {
    const { server, items, cache } = await lendFailing({ bumpDeadlineMs: 50 });
    server.pause();
    const error = await items.bump({ item: 1 }).catch((thrown: unknown) => thrown);
    server.resume();
    expect(error).to.be.instanceOf(BumpError);
    expect(error).to.deep.include({ code: 'BUMP', outcome: 'unknown', paths: ['item=1'] });
    expect((error as Error).message).to.equal(
      'Bump of 1 scope (item) failed; the outcome is unknown: ' +
        'A bump must be answered by the store within 50 ms, and was not. ' +
        'Look at the load of the store and of this event loop, or raise the deadline. ' +
        'What was cached before stays readable for its TTL. Retry: bumps are idempotent.',
    );
    expect(cache.statistics.total('failed_bumps', { namespace: 'item', cause: 'call' })).to.equal(1);
  });

  it('a bump that can’t be sent rejects as not sent', async () => {
    const { proxy, items } = await lendFailing({ bumpDeadlineMs: 50 });
    proxy.refuse();
    proxy.cut();
    await eventually(async () => {
      const error = await items.bump({ item: 1 }).catch((thrown: unknown) => thrown);
      expect(error).to.deep.include({ code: 'BUMP', outcome: 'not_sent' });
      expect((error as Error).message).to.match(
        /^Bump of 1 scope \(item\) failed; the command was not sent: .*ECONNREFUSED.* Retry: bumps are idempotent\.$/,
      );
    });
  });

  it('a bump whose reply is lost rejects, is not resent, and can be repeated', async () => {
    const { proxy, items, value, rows } = await lendFailing();
    rows.set(1, 'newer');
    const dropped = proxy.dropReplies();
    const error = await items.bump({ item: 1 }).catch((thrown: unknown) => thrown);
    await dropped;
    expect(error).to.deep.include({ code: 'BUMP', outcome: 'unknown' });
    await items.bump({ item: 1 });
    expect(await value.fetch({ item: 1 })).to.equal('newer');
  });

  it('a failed fill is counted, and its caller gets the value', async () => {
    const { server, value, rows, loads, cache, hold } = await lendFailing({ readDeadlineMs: 1_000 });
    rows.set(2, 'two');
    const release = hold();
    const read = value.fetch({ item: 2 });
    await eventually(() => expect(loads).to.have.length(2));
    server.pause();
    release();
    expect(await read).to.equal('two');
    await cache.settled();
    server.resume();
    expect(cache.statistics.total('refused_fills', { reason: 'store_failure' })).to.equal(1);
  });

  it('a FLUSHALL costs only misses', async () => {
    const { server, value, rows, items } = await lendFailing();
    await lendRedis({ url: server.url }).flushall();
    rows.set(1, 'newer');
    expect(await value.fetch({ item: 1 })).to.equal('newer');
    await items.bump({ item: 1 });
    expect(await value.fetch({ item: 1 })).to.equal('newer');
  });

  it('calls made before Redis is ready wait for it within their deadline', async () => {
    const server = await privateRedis();
    const proxy = await startProxy(server.port);
    proxy.hold();
    const { value, rows, cache } = lendCache({ url: proxy.url, readDeadlineMs: 5_000 });
    rows.set(1, 'one');
    const read = value.fetch({ item: 1 });
    await eventually(() => expect(proxy.requestBytes).to.be.above(0)); // the handshake, without a reply
    proxy.release();
    expect(await read).to.equal('one');
    expect(cache.statistics.total('misses')).to.equal(1);
    expect(cache.statistics.total('bypasses')).to.equal(0);
  });

  it('close does not wait for a dead Redis', async () => {
    const { server, cache, value } = await lendFailing({ readDeadlineMs: 20 });
    await server.stop();
    await value.fetch({ item: 1 });
    await cache.close();
  });
});
