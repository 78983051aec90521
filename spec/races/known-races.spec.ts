/**
 * Known races and losses of caches, by their names in the field. Each spec is the interleaving with which another cache
 * serves stale data, loses data or grows for ever.
 */
import { expect } from 'chai';
import { GenerationalCache, integer, text } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { manualClock, observe } from '../../lib/testing/index.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { isBeat, recordCommands } from '../support/commands.js';
import { lend } from '../support/lenders.js';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis, redisUrl, uniqueName } from '../support/redis.js';
import { Database, Process } from './process.js';

const ITEM = 1;

/** Processes on one Redis and one database, and a client that reads the keys themselves. */
function lendProcesses() {
  const name = uniqueName();
  const database = new Database();
  const process = () => new Process(name, redisStore(lendRedis({ lazyConnect: true })), database);
  const generationKey = `gencache:{${name}:0}:g:item=${ITEM}`;
  return { name, database, one: process(), other: process(), generationKey, client: lendRedis() };
}

/** A cache whose values a spec chooses. */
function lendCache(options: Partial<ConstructorParameters<typeof GenerationalCache>[0]> = {}) {
  const name = uniqueName();
  const store = redisStore(lendRedis({ lazyConnect: true }));
  const cache = new GenerationalCache({ ttlMs: 60_000, readDeadlineMs: READ_DEADLINE_MS, ...options, name, store });
  lend({ what: `the cache ${name}`, close: () => cache.close() });
  return { name, cache, items: cache.namespace('item', integer()) };
}

/** Every key of a cache on the shared server but beats, with its type and its TTL. */
async function keysOf(name: string): Promise<{ key: string; type: string; ttlMs: number }[]> {
  const client = lendRedis();
  const keys: { key: string; type: string; ttlMs: number }[] = [];
  for await (const found of client.scanStream({ match: `*${name}:*`, count: 1_000 })) {
    for (const key of found as string[]) {
      if (isBeat([key])) continue;
      keys.push({ key, type: await client.type(key), ttlMs: await client.pttl(key) });
    }
  }
  return keys;
}

describe('known races', () => {
  it('stale fill: no read returns a load from before the commit that is filled after the bump', async () => {
    const { one, other, database } = lendProcesses();
    const slow = one.stepwise(ITEM);
    const refused = observe(one.cache);
    await slow.lookup();
    await slow.load();
    database.commit(ITEM);
    await other.bump(ITEM);
    await other.read(ITEM);
    await slow.fill();
    expect(await slow.value()).to.equal(0); // it began before the commit
    expect(refused.events('fill').map(({ fills, refusalReasons }) => [fills, refusalReasons])).to.deep.equal([
      [0, { moved: 1 }],
    ]);
    expect(await other.read(ITEM)).to.equal(1);
    expect(await one.read(ITEM)).to.equal(1);
  });

  it('stale fill, by hand: a vector looked up before the bump does not fill after it', async () => {
    const { items } = lendCache();
    const entry = items.one('value', { load: async () => [], by: () => ({ item: ITEM }), value: () => 'value' });
    const looked = await entry.lookup({ item: ITEM });
    if (looked.outcome === 'bypass') throw new Error('no bypass');
    await items.bump({ item: ITEM });
    expect(await entry.fill(looked.vector, 'old')).to.equal('refused');
    expect((await entry.lookup({ item: ITEM })).outcome).to.equal('miss');
  });

  it('resurrection: a lost generation starts again with another value, which no old entry matches', async () => {
    const { one, other, database, client, generationKey } = lendProcesses();
    expect(await one.read(ITEM)).to.equal(0);
    const before = await client.get(generationKey);
    database.commit(ITEM);
    await client.del(generationKey); // evicted before the bump
    await other.bump(ITEM); // moves nothing, and writes nothing
    expect(await client.get(generationKey)).to.equal(null);
    expect(await one.read(ITEM)).to.equal(1);
    const after = await client.get(generationKey);
    expect(after).to.match(/^0\./); // the count starts again
    expect(after).to.not.equal(before); // the nonce differs
    expect(await other.read(ITEM)).to.equal(1);
  });

  it('resurrection by FLUSHALL: no vector that a process remembers brings an entry back', async () => {
    const server = await privateRedis();
    const name = uniqueName();
    const database = new Database();
    const store = () => redisStore(lendRedis({ url: server.url, lazyConnect: true }));
    const [one, other] = [new Process(name, store(), database), new Process(name, store(), database)];
    await one.read(ITEM);
    await other.read(ITEM);
    database.commit(ITEM);
    await lendRedis({ url: server.url }).flushall();
    await one.bump(ITEM);
    expect(await other.read(ITEM)).to.equal(1);
    expect(await one.read(ITEM)).to.equal(1);
  });

  it('uninvalidatable entry: no entry outlives a generation that guards it', async () => {
    const { name, cache, items } = lendCache({ ttlJitter: 0 });
    const rows = { load: async (ids: readonly { item: unknown }[]) => [...ids], by: (row: never) => row };
    const short = items.one('short', { ...rows, ttlMs: 1_000 } as never);
    const day = items.one('day', { ...rows, ttlMs: 24 * 3_600_000 } as never);
    await short.fetch({ item: 1 } as never);
    await cache.settled();
    await day.fetch({ item: 1 } as never); // under generations that were minted for a second's entry
    await cache.settled();
    await items.bump({ item: 1 });
    await short.fetch({ item: 1 } as never);
    await cache.settled();
    const keys = await keysOf(name);
    const longestEntryMs = Math.max(...keys.filter(({ key }) => key.includes(':e:')).map(({ ttlMs }) => ttlMs));
    const shortestGenerationMs = Math.min(...keys.filter(({ key }) => key.includes(':g:')).map(({ ttlMs }) => ttlMs));
    expect(longestEntryMs).to.be.within(23 * 3_600_000, 24 * 3_600_000);
    expect(shortestGenerationMs).to.be.above(longestEntryMs);
  });

  it('joined load: a read after the bump does not join a load from before the commit', async () => {
    const { one, database } = lendProcesses();
    const early = one.stepwise(ITEM);
    await early.lookup();
    await early.load();
    database.commit(ITEM);
    await one.bump(ITEM);
    const late = one.stepwise(ITEM); // in the same process, while the early load is under way
    await late.lookup();
    await late.load();
    await late.fill();
    expect(await late.value()).to.equal(1);
    await early.fill();
    expect(await early.value()).to.equal(0);
    expect(await one.read(ITEM)).to.equal(1);
  });

  it('joined load: a read before any bump joins the load under way', async () => {
    const { one } = lendProcesses();
    const seen = observe(one.cache);
    const [early, late] = [one.stepwise(ITEM), one.stepwise(ITEM)];
    await early.lookup();
    await late.lookup();
    await early.load();
    await early.fill();
    expect([await early.value(), await late.value()]).to.deep.equal([0, 0]);
    expect(seen.loads).to.equal(1);
  });

  it('clock skew: processes whose clocks are a day apart see each other’s bumps', async () => {
    const name = uniqueName();
    let version = 0;
    const processes = [0, 24 * 3_600_000].map((aheadMs) => {
      const clock = manualClock();
      clock.advance(aheadMs);
      const store = redisStore(lendRedis({ lazyConnect: true }));
      const cache = new GenerationalCache({ name, store, clock, readDeadlineMs: READ_DEADLINE_MS });
      lend({ what: `the cache ${name}`, close: () => cache.close() });
      const items = cache.namespace('item', integer());
      const entry = items.one('value', {
        load: async (ids) => ids.map(({ item }) => ({ item, version })),
        by: ({ item }) => ({ item }),
        value: (row) => row.version,
      });
      return { cache, items, read: () => entry.fetch({ item: ITEM }) };
    });
    for (const [writer, reader] of [processes, processes.toReversed()]) {
      for (let round = 0; round < 3; round++) {
        await reader!.read();
        await reader!.cache.settled();
        version++;
        await writer!.items.bump({ item: ITEM });
        expect(await reader!.read()).to.equal(version);
        await reader!.cache.settled();
        expect(await writer!.read()).to.equal(version);
        await writer!.cache.settled();
      }
    }
  });

  it('failover reuse: a bump that a promoted replica missed is not confused with the next one', async () => {
    const { one, other, database, client, generationKey } = lendProcesses();
    await one.read(ITEM);
    const before = (await client.get(generationKey))!;
    database.commit(ITEM);
    await other.bump(ITEM);
    const missed = (await client.get(generationKey))!;
    expect(await one.read(ITEM)).to.equal(1); // an entry under the generation that will be lost
    await client.set(generationKey, before, 'PX', 60_000); // the replica had not seen the bump
    database.commit(ITEM);
    await other.bump(ITEM);
    const again = (await client.get(generationKey))!;
    // The count is the same, as in a cache whose version is a bare counter; the value differs.
    expect(again.split('.')[0]).to.equal(missed.split('.')[0]);
    expect(again).to.not.equal(missed);
    expect(await one.read(ITEM)).to.equal(2);
    expect(await other.read(ITEM)).to.equal(2);
  });

  it('lost update: concurrent bumps of several processes all count', async () => {
    const { one, other, client, generationKey } = lendProcesses();
    await one.read(ITEM);
    await Promise.all(Array.from({ length: 50 }, (_, i) => (i % 2 ? one : other).bump(ITEM)));
    expect(await client.get(generationKey)).to.match(/^50\./);
  });

  it('scan: a bump of global lists no keys, however many lie below it', async () => {
    const { name, cache, items } = lendCache();
    const entry = items.list('value', { load: async (ids) => [...ids], by: (row) => row as { item: number } });
    await entry.fetchMany(Array.from({ length: 500 }, (_, item) => ({ item })));
    await cache.settled();
    const { commands } = await recordCommands(redisUrl(), () => cache.bump(), { from: name });
    expect(commands).to.have.length(1); // the bump, with one key
    expect(commands[0]!.slice(2, 4)).to.deep.equal(['1', `gencache:{${name}:0}:g:`]);
    const looked = await Promise.all([0, 250, 499].map((item) => entry.lookup({ item })));
    expect(looked.map(({ outcome }) => outcome)).to.deep.equal(['miss', 'miss', 'miss']);
  });

  it('null as empty string: empty and falsy values come back unchanged', async () => {
    const values: unknown[] = [null, '', 0, false, [], {}, undefined, NaN, 'null', Buffer.alloc(0)];
    const { cache, items } = lendCache();
    let loads = 0;
    const entry = items.one('value', {
      load: async (ids) => {
        loads++;
        return ids.filter(({ item }) => Number(item) < values.length).map(({ item }) => ({ item: Number(item) }));
      },
      by: (row) => row,
      value: ({ item }) => values[item],
    });
    const ids = [...values.keys(), values.length].map((item) => ({ item }));
    const loaded = await entry.fetchMany(ids);
    await cache.settled();
    const read = await entry.fetchMany(ids);
    expect(loads).to.equal(1);
    expect(loaded).to.deep.equal([...values, undefined]);
    expect(read).to.deep.equal([...values, undefined]);
    // A row whose value is undefined is a hit; a missing row is absent.
    const outcomes = await Promise.all([entry.lookup({ item: 6 }), entry.lookup({ item: values.length })]);
    expect(outcomes.map(({ outcome }) => outcome)).to.deep.equal(['hit', 'absent']);
  });

  it('set leak: every key is a string that expires, and bumps add none', async () => {
    const { name, cache, items } = lendCache();
    const labels = cache.namespace('label', text());
    const entry = items.list('value', {
      load: async (ids) => [...ids],
      by: (row) => row as { item: number },
      dependsOn: ({ item }) => [labels.scope({ label: `label ${Number(item) % 3}` })],
    });
    const ids = Array.from({ length: 20 }, (_, item) => ({ item }));
    const generations = 1 + 20 + 3;
    for (let round = 1; round <= 5; round++) {
      await entry.fetchMany(ids);
      await cache.settled();
      const keys = await keysOf(name);
      expect(keys.filter(({ key }) => key.includes(':g:'))).to.have.length(generations);
      expect(keys).to.have.length(generations + 20 * round); // orphans stay until their TTL
      expect(keys.filter(({ type, ttlMs }) => type !== 'string' || ttlMs <= 0)).to.deep.equal([]);
      const orphansMs = keys.filter(({ key }) => key.includes(':e:')).map(({ ttlMs }) => ttlMs);
      expect(Math.max(...orphansMs)).to.be.at.most(60_000);
      await labels.bumpMany([0, 1, 2].map((label) => ({ label: `label ${label}` })));
    }
    await cache.bump();
    await items.bumpMany(Array.from({ length: 1_000 }, (_, item) => ({ item: 1_000 + item })));
    expect(await keysOf(name)).to.have.length(generations + 100);
  });

  it('hang: with Redis out of reach the source answers every read, and a bump rejects', async () => {
    const server = await privateRedis();
    const proxy = await startProxy(server.port);
    const name = uniqueName();
    const store = redisStore(lendRedis({ url: proxy.url, lazyConnect: true }));
    const cache = new GenerationalCache({ name, store, readDeadlineMs: 50, bumpDeadlineMs: 50 });
    lend({ what: `the cache ${name}`, close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const entry = items.one('value', { load: async (ids) => [...ids], by: (row) => row as { item: number } });
    for (const fault of [
      () => proxy.hold(), // half-open
      () => proxy.cut(), // closed, and the next connection is half-open
      () => proxy.refuse(), // connections refused
    ]) {
      fault();
      expect(await entry.fetchMany([{ item: 1 }, { item: 2 }])).to.deep.equal([{ item: 1 }, { item: 2 }]);
      const error = await items.bump({ item: 1 }).catch((thrown: unknown) => thrown);
      expect(error).to.include({ name: 'BumpError', code: 'BUMP' });
    }
    expect(cache.statistics.total('bypasses')).to.equal(6);
    expect(cache.statistics.total('failed_bumps')).to.equal(3);
  });
});
