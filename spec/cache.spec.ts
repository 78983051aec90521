import { expect } from 'chai';
import { GenerationalCache, integer, memoryStore, text, type Vector } from '../lib/index.js';
import { redisStore } from '../lib/store/redis/index.js';
import { lendCache, READ_DEADLINE_MS } from './support/cache.js';
import { isBeat } from './support/commands.js';
import { deferred, eventually } from './support/deferred.js';
import { lend } from './support/lenders.js';
import { itWithoutTier } from './support/local-tier/it-without-tier.js';
import { lendRedis, uniqueName } from './support/redis.js';

describe('GenerationalCache', () => {
  function lendShop(options: { ttlMs?: number; ttlJitter?: number; loadBatchMax?: number } = {}) {
    const redis = lendRedis();
    const cache = new GenerationalCache({
      ...{ readDeadlineMs: READ_DEADLINE_MS, ...options },
      ...{ name: uniqueName(), store: redisStore(redis) },
    });
    lend({ what: 'the cache', close: () => cache.close() });
    return { redis, cache };
  }

  describe('an entry', () => {
    it('distinguishes a row, an absence and an empty list from a miss, and from null and ""', async () => {
      const { value, rows, loads, cache } = lendCache();
      rows.set(1, null).set(2, '').set(3, undefined).set(4, 0);
      const ids = [1, 2, 3, 4, 5].map((item) => ({ item }));
      expect(await value.fetchMany(ids)).to.deep.equal([null, '', undefined, 0, undefined]);
      await cache.settled();
      expect(await value.fetchMany(ids)).to.deep.equal([null, '', undefined, 0, undefined]);
      expect(loads).to.have.length(1);
      expect((await value.lookup({ item: 3 })).outcome).to.equal('hit');
      expect((await value.lookup({ item: 5 })).outcome).to.equal('absent');
      expect((await value.lookup({ item: 6 })).outcome).to.equal('miss');
    });

    it('caches empty lists, and groups rows in the loader’s order', async () => {
      const { cache } = lendShop();
      const rows = [
        { customer: '2', order: 9 },
        { customer: '1', order: 5 },
        { customer: '1', order: 3 },
      ];
      let loads = 0;
      const orders = cache.namespace('customer', integer()).list('orders', {
        async load() {
          loads++;
          return rows;
        },
        by: (row) => ({ customer: row.customer }),
        value: (row) => row.order,
      });
      const ids = [3, 1, 2].map((customer) => ({ customer }));
      expect(await orders.fetchMany(ids)).to.deep.equal([[], [5, 3], [9]]);
      await cache.settled();
      expect(await orders.fetchMany(ids)).to.deep.equal([[], [5, 3], [9]]);
      expect(loads).to.equal(1);
    });

    it('distinguishes entries of one scope by its key, and a bump invalidates them together', async () => {
      const { cache } = lendShop();
      const tenants = cache.namespace('tenant', text());
      const asked: unknown[] = [];
      const settings = tenants.one('setting', {
        key: { setting: text(), version: integer() },
        async load(ids) {
          asked.push(ids);
          return ids.map((id) => ({ ...id }));
        },
        by: ({ tenant, setting, version }) => ({ tenant, setting, version }),
        value: ({ setting, version }) => `${setting}${version}`,
      });
      const ids = [
        { tenant: 'a:b', setting: 'x', version: 1 },
        { tenant: 'a:b', setting: 'x', version: 2 },
        { tenant: 'a', setting: 'b:x', version: 1 },
      ];
      expect(await settings.fetchMany(ids)).to.deep.equal(['x1', 'x2', 'b:x1']);
      await cache.settled();
      await tenants.bump({ tenant: 'a:b' });
      asked.length = 0;
      expect(await settings.fetchMany(ids)).to.deep.equal(['x1', 'x2', 'b:x1']);
      expect(asked).to.deep.equal([ids.slice(0, 2)]);
    });

    it('may belong to the global scope', async () => {
      const { cache } = lendShop();
      let loads = 0;
      const flags = cache.list('flags', { load: async () => [`flag ${++loads}`], by: () => ({}) });
      expect(await flags.fetch({})).to.deep.equal(['flag 1']);
      await cache.settled();
      expect(await flags.fetch({})).to.deep.equal(['flag 1']);
      await cache.bump();
      expect(await flags.fetch({})).to.deep.equal(['flag 2']);
    });

    it('expires after its TTL, counted from the lookup, and shortened only by jitter', async () => {
      const { redis, cache } = lendShop({ ttlMs: 10_000, ttlJitter: 0.5 });
      const items = cache.namespace('item', integer());
      const load = async (ids: readonly { item: number | string }[]) => {
        await new Promise((resolve) => setTimeout(resolve, 50));
        return [...ids];
      };
      const short = items.one('short', { load, by: ({ item }) => ({ item }) });
      const long = items.one('long', { load, by: ({ item }) => ({ item }), ttlMs: 7_200_000 });
      const ids = Array.from({ length: 40 }, (_, item) => ({ item }));
      await Promise.all([short.fetchMany(ids), long.fetchMany(ids)]);
      await cache.settled();
      const ttls = async (pattern: string) => {
        const keys = await redis.keys(`gencache:{${cache.name}:0}:${pattern}`);
        return Promise.all(keys.map((key) => redis.pttl(key)));
      };
      const shorts = await ttls('e:1:*:short:*');
      expect(shorts).to.have.length(40);
      expect(Math.max(...shorts)).to.be.within(5_001, 9_950);
      expect(Math.min(...shorts)).to.be.within(3_000, 8_000);
      expect(new Set(shorts).size).to.be.greaterThan(10);
      // Each generation lives at least twice the longest TTL filled under it.
      const generations = await ttls('g:*');
      expect(generations).to.have.length(41);
      expect(Math.min(...generations)).to.be.within(4 * 3_600_000 - 10_000, 4 * 3_600_000);
    });

    it('never leaves a key without a TTL', async () => {
      const { redis, cache } = lendShop();
      const items = cache.namespace('item', integer());
      const value = items.one('value', { load: async (ids) => [...ids], by: ({ item }) => ({ item }) });
      await value.fetchMany([{ item: 1 }, { item: 2 }]);
      await cache.settled();
      await items.bump({ item: 1 });
      await cache.bump();
      const keys = await redis.keys(`*${cache.name}*`);
      expect(keys.filter((key) => !isBeat([key]))).to.have.length(5);
      for (const key of keys) expect(await redis.pttl(key), key).to.be.greaterThan(0);
    });
  });

  describe('fetchMany', () => {
    it('keeps the order of its input, and loads duplicates once', async () => {
      const { value, rows, loads } = lendCache();
      for (let i = 0; i < 10; i++) rows.set(i, `v${i}`);
      const asked = [7, 1, 7, 3, 1, 99, 7];
      const expected = asked.map((id) => rows.get(id));
      expect(await value.fetchMany(asked.map((item) => ({ item })))).to.deep.equal(expected);
      expect(loads).to.deep.equal([[7, 1, 3, 99]]);
      expect(await value.fetchMany([])).to.deep.equal([]);
    });

    it('gives all misses to the loader in one call, and above loadBatchMax in several', async () => {
      const { value, loads, rows } = lendCache({ loadBatchMax: 1_000 });
      const ids = Array.from({ length: 2_500 }, (_, item) => ({ item }));
      for (const { item } of ids) rows.set(item, item);
      expect(await value.fetchMany(ids)).to.deep.equal(ids.map(({ item }) => item));
      expect(loads.map((load) => load.length)).to.deep.equal([1_000, 1_000, 500]);
    });

    it('loads only misses', async () => {
      const { value, loads, rows, cache } = lendCache();
      rows.set(1, 'one').set(2, 'two').set(3, 'three');
      await value.fetchMany([{ item: 1 }, { item: 3 }]);
      await cache.settled();
      expect(await value.fetchMany([{ item: 1 }, { item: 2 }, { item: 3 }])).to.deep.equal(['one', 'two', 'three']);
      expect(loads).to.deep.equal([[1, 3], [2]]);
    });
  });

  describe('calls that share a load', () => {
    itWithoutTier('get values of their own, so that a change by one caller affects no other', async () => {
      const { value, rows, cache } = lendCache();
      rows.set(1, { tags: ['a'] });
      type Value = { tags: string[] };
      const [first, second] = (await Promise.all([value.fetch({ item: 1 }), value.fetch({ item: 1 })])) as Value[];
      first!.tags.push('mine');
      second!.tags.length = 0;
      await cache.settled();
      const [third, fourth] = (await Promise.all([value.fetch({ item: 1 }), value.fetch({ item: 1 })])) as Value[];
      third!.tags.push('mine');
      expect(fourth).to.deep.equal({ tags: ['a'] });
      expect(await value.fetch({ item: 1 })).to.deep.equal({ tags: ['a'] });
    });

    it('join it in a later turn only with the same vector', async () => {
      const { value, items, rows, loads, hold } = lendCache();
      rows.set(1, 'old');
      const release = hold();
      const first = value.fetch({ item: 1 });
      await eventually(() => expect(loads).to.have.length(1));
      const joins = value.fetch({ item: 1 });
      await new Promise((resolve) => setTimeout(resolve, 30));
      expect(loads).to.have.length(1);
      rows.set(1, 'new');
      await items.bump({ item: 1 });
      const after = value.fetch({ item: 1 });
      await eventually(() => expect(loads).to.have.length(2));
      release();
      expect(await Promise.all([first, joins, after])).to.deep.equal(['old', 'old', 'new']);
    });

    it('all get the loader’s own error, and the cache stores no value', async () => {
      const { cache } = lendShop();
      const boom = Object.assign(new Error('statement timeout'), { code: '57014' });
      let fail = true;
      const value = cache.namespace('item', integer()).one('value', {
        load: async (ids) => {
          if (fail) throw boom;
          return [...ids];
        },
        by: ({ item }) => ({ item }),
      });
      const errors = await Promise.all(
        [value.fetch({ item: 1 }), value.fetchMany([{ item: 1 }, { item: 2 }])].map((call) =>
          call.catch((error: unknown) => error),
        ),
      );
      expect(errors).to.deep.equal([boom, boom]);
      expect(errors[0]).to.equal(boom);
      // Of both ids, then of the one that both callers share, and of the other.
      expect(cache.statistics.total('load_errors')).to.equal(3);
      fail = false;
      expect(await value.fetch({ item: 1 })).to.deep.equal({ item: 1 });
    });

    it('get one error and one event, even when some values arrive later', async () => {
      const { cache } = lendShop({ loadBatchMax: 1 });
      const asked: unknown[] = [];
      const value = cache.namespace('item', integer()).one('value', {
        load: async (ids) => {
          asked.push(ids[0]!.item);
          if (ids[0]!.item === 2) throw new Error('source down');
          return [...ids];
        },
        by: ({ item }) => ({ item }),
      });
      await value.fetch({ item: 1 });
      await cache.settled();
      const reads: number[] = [];
      cache.on('read', ({ hits, misses }) => reads.push(hits, misses));
      const error = await value.fetchMany([{ item: 2 }, { item: 1 }, { item: 3 }]).catch((thrown: unknown) => thrown);
      await cache.settled();
      expect((error as Error).message).to.equal('source down');
      expect(asked).to.deep.equal([1, 2]); // item 3 is loaded for no caller
      expect(reads).to.deep.equal([1, 2]);
    });

    it('settle independently: a hit does not wait for another entry’s load', async () => {
      const { value, rows, cache, hold } = lendCache();
      rows.set(1, 'one').set(2, 'two');
      await value.fetch({ item: 1 });
      await cache.settled();
      const release = hold();
      let missed = false;
      const miss = value.fetch({ item: 2 }).then(() => (missed = true));
      expect(await value.fetch({ item: 1 })).to.equal('one');
      expect(missed).to.equal(false);
      release();
      await miss;
    });
  });

  describe('lookup and fill', () => {
    it('store a value that was read after the lookup, under its vector', async () => {
      const { value, loads } = lendCache();
      const looked = await value.lookup({ item: 1 });
      expect(looked.outcome).to.equal('miss');
      if (looked.outcome !== 'miss') return;
      expect(await value.fill(looked.vector, { read: 'elsewhere' })).to.equal('filled');
      expect(await value.fetch({ item: 1 })).to.deep.equal({ read: 'elsewhere' });
      expect(loads).to.deep.equal([]);
    });

    it('refuse the fill when a generation moved in between', async () => {
      const { value, cache } = lendCache();
      const looked = await value.lookup({ item: 1 });
      await cache.bump();
      if (looked.outcome !== 'miss') throw new Error('expected a miss');
      expect(await value.fill(looked.vector, 'stale')).to.equal('refused');
      expect((await value.lookup({ item: 1 })).outcome).to.equal('miss');
      expect(cache.statistics.total('refused_fills', { reason: 'moved' })).to.equal(1);
    });

    it('store an absence', async () => {
      const { value } = lendCache();
      const looked = await value.lookup({ item: 1 });
      if (looked.outcome !== 'miss') throw new Error('expected a miss');
      await value.fill(looked.vector, undefined);
      expect((await value.lookup({ item: 1 })).outcome).to.equal('absent');
    });

    it('reject a vector that no lookup of the same entry returned', async () => {
      const { value } = lendCache();
      const other = lendCache();
      const looked = await other.value.lookup({ item: 1 });
      if (looked.outcome !== 'miss') throw new Error('expected a miss');
      for (const vector of [looked.vector, { entryKey: 'mine' } as unknown as Vector]) {
        const error = await value.fill(vector, 'x').catch((thrown: unknown) => thrown);
        expect((error as Error).message).to.match(
          /^`fill` must get the vector that a lookup of the same entry returned, but got .* \(entry "value"\)\. Call `lookup` of this entry first, then read the source, then fill\.$/,
        );
      }
    });
  });

  describe('delete', () => {
    it('frees an entry, and creates no key where the entry is missing', async () => {
      const { value, rows, cache, name } = lendCache();
      const redis = lendRedis();
      expect(await value.delete({ item: 1 })).to.equal(false);
      expect(await redis.keys(`*${name}*`)).to.deep.equal([]);
      rows.set(1, 'one');
      await value.fetch({ item: 1 });
      await cache.settled();
      expect(await value.delete({ item: 1 })).to.equal(true);
      expect(await redis.keys(`*${name}:0}:e:*`)).to.deep.equal([]);
      expect((await value.lookup({ item: 1 })).outcome).to.equal('miss');
    });
  });

  describe('close', () => {
    it('waits for calls and fills under way, and leaves the owner’s client open', async () => {
      const redis = lendRedis();
      const store = redisStore(redis);
      const cache = new GenerationalCache({ name: uniqueName(), store, readDeadlineMs: READ_DEADLINE_MS });
      const gate = deferred();
      const value = cache.namespace('item', integer()).one('value', {
        load: async (ids) => {
          await gate.promise;
          return [...ids];
        },
        by: ({ item }) => ({ item }),
      });
      const read = value.fetch({ item: 1 });
      const closed = cache.close();
      expect(cache.close()).to.equal(closed);
      gate.resolve();
      await closed;
      expect(await read).to.deep.equal({ item: 1 });
      expect(await redis.keys(`*${cache.name}:0}:e:*`)).to.have.length(1);
      expect(await redis.ping()).to.equal('PONG');
    });

    it('makes later calls reject with a ClosedError', async () => {
      const { cache, value, items } = lendCache({ store: memoryStore() });
      await cache.close();
      const message = `The cache "${cache.name}" was closed before this call. Close it after the last call.`;
      for (const call of [
        () => value.fetch({ item: 1 }),
        () => items.bump({ item: 1 }),
        () => value.lookup({ item: 1 }),
      ]) {
        const error = await call().catch((thrown: unknown) => thrown);
        expect(error).to.deep.include({ name: 'ClosedError', code: 'CLOSED', message });
      }
    });
  });

  it('shares generations, not entries, between schema versions', async () => {
    const name = uniqueName();
    const old = lendCache({ name, schemaVersion: 1 });
    const next = lendCache({ name, schemaVersion: 2 });
    old.rows.set(1, 'old shape');
    next.rows.set(1, { shape: 'new' });
    await old.value.fetch({ item: 1 });
    await old.cache.settled();
    expect(await next.value.fetch({ item: 1 })).to.deep.equal({ shape: 'new' });
    await next.cache.settled();
    await next.items.bump({ item: 1 });
    old.rows.set(1, 'changed');
    expect(await old.value.fetch({ item: 1 })).to.equal('changed');
  });
});
