/** The local tier: decoded values in this process, which each read verifies by their generations. */
import { expect } from 'chai';
import { withDeadline } from '../../lib/async/deadline.js';
import { integer, memoryStore, type Store } from '../../lib/index.js';
import { nonce } from '../../lib/model/generation.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { suspensionClock } from '../../lib/ports/clock.js';
import { manualClock, observe } from '../../lib/testing/index.js';
import { lendCache } from '../support/cache.js';
import { recordCommands } from '../support/commands.js';
import { deferred } from '../support/deferred.js';
import { lendRedis, privateRedis, redisUrl, uniqueName } from '../support/redis.js';
import { thrown } from '../support/rejection.js';
import { partitioned } from '../support/stores.js';

const LOCAL = { mode: 'verify', maxEntries: 1_000 } as const;
const ID = { item: 1 };

type Options = NonNullable<Parameters<typeof lendCache>[0]>;

/** One process with a tier. `local`: how many hits the tier answered, and why it could not. */
function lendTier(options: Options = {}) {
  const lent = lendCache({ local: LOCAL, ttlJitter: 0, ...options });
  const seen = observe(lent.cache);
  const { statistics } = lent.cache;
  return {
    ...lent,
    seen,
    localHits: () => statistics.total('local_hits'),
    unverified: () => seen.events('localUnverified').map(({ reason }) => reason),
    /** The value, when its fill has ended too. */
    async fetch(ids = ID) {
      const value = await lent.value.fetch(ids);
      await lent.cache.settled();
      return value;
    },
  };
}

/** Several processes of one cache on the shared Redis, each with a tier unless its options say otherwise. */
function lendProcesses(...options: Options[]) {
  const name = uniqueName();
  const rows = new Map<number, unknown>([[1, { version: 1 }]]);
  return options.map((own) => lendTier({ name, rows, ...own }));
}

/** The arguments of the commands of a hit, without the prefix of the cache. */
async function keysOf({ name }: { name: string }, work: () => Promise<unknown>): Promise<string[][]> {
  const { commands } = await recordCommands(redisUrl(), work, { from: name });
  return commands.map((command) => command.map((part) => part.replace(keyPrefix(name), '')));
}

describe('a local tier', () => {
  describe('whose value a reader gets', () => {
    it('has what this process filled: a hit asks for the generations alone', async () => {
      const [one] = lendProcesses({});
      await one!.fetch();
      const commands = await keysOf(one!, async () => expect(await one!.fetch()).to.deep.equal({ version: 1 }));
      expect(commands).to.deep.equal([
        ['MGET', 'g:', 'g:item=1'], // no entry
      ]);
      expect(one!.localHits()).to.equal(1);
      expect(one!.cache.statistics.total('hits')).to.equal(1);
      expect(one!.seen.events('read').map(({ localHits }) => localHits)).to.deep.equal([0, 1]);
    });

    it('has what another process filled from the first read on', async () => {
      const [one, other] = lendProcesses({}, {});
      await one!.fetch();
      expect(await other!.fetch()).to.deep.equal({ version: 1 });
      expect(other!.localHits()).to.equal(0);
      const commands = await keysOf(other!, () => other!.fetch());
      expect(commands).to.deep.equal([['MGET', 'g:', 'g:item=1']]);
      expect([other!.localHits(), other!.loads]).to.deep.equal([1, []]);
    });

    it('does not enter without an instant of expiry, as processes without a tier store it', async () => {
      const [plain, one] = lendProcesses({ local: undefined } as never, {});
      await plain!.fetch();
      for (let read = 0; read < 3; read++) expect(await one!.fetch()).to.deep.equal({ version: 1 });
      expect(one!.cache.state.local).to.deep.equal({ entries: 0, bytes: 0 });
      expect([one!.localHits(), one!.loads]).to.deep.equal([0, []]);
      // A process without a tier reads what one with a tier stored.
      await plain!.items.bump(ID);
      await one!.fetch();
      await plain!.fetch({ item: 2 }); // whose claim tells it the store's time
      expect(await plain!.fetch()).to.deep.equal({ version: 1 });
      expect(plain!.loads).to.deep.equal([[1], [2]]);
    });

    it('is an absence too, and none that can’t be stored', async () => {
      const { fetch, localHits, rows, loads } = lendTier({ store: memoryStore(), maxValueBytes: 200 });
      for (let read = 0; read < 2; read++) expect(await fetch()).to.equal(undefined);
      expect(localHits()).to.equal(1);
      rows.set(2, 'x'.repeat(300));
      for (let read = 0; read < 2; read++) await fetch({ item: 2 });
      expect(localHits()).to.equal(1);
      expect(loads).to.deep.equal([[1], [2], [2]]);
    });

    it('is in one command with values of the store, in the order of the ids', async () => {
      const [one, other] = lendProcesses({}, {});
      for (const item of [1, 2, 3, 4]) one!.rows.set(item, `value ${item}`);
      await one!.value.fetchMany([1, 2, 3, 4].map((item) => ({ item })));
      await one!.cache.settled();
      await other!.value.fetchMany([{ item: 2 }, { item: 4 }]);
      await other!.value.lookup({ item: 1 });
      const read = () => other!.value.fetchMany([4, 3, 2, 1, 2].map((item) => ({ item })));
      expect(await read()).to.deep.equal([4, 3, 2, 1, 2].map((item) => `value ${item}`));
      expect(other!.localHits()).to.equal(3);
      expect(await read()).to.deep.equal([4, 3, 2, 1, 2].map((item) => `value ${item}`));
      expect([other!.localHits(), other!.loads]).to.deep.equal([7, []]);
    });

    it('is checked against a schema once, when it enters', async () => {
      const { cache, name } = lendTier();
      const writer = lendTier({ name });
      let checks = 0;
      const validate = (value: unknown) => (
        checks++,
        value === 'wrong' ? { issues: [{ message: 'wrong' }] } : { value }
      );
      const declare = (to: typeof cache, schema: object) =>
        to.one('checked', { ...schema, load: async () => [{}], by: () => ({}), value: () => 'right' });
      const stored = declare(writer.cache, {});
      const checked = declare(cache, { schema: { '~standard': { version: 1, vendor: 'spec', validate } } });
      await stored.fetch({});
      await writer.cache.settled();
      for (let read = 0; read < 4; read++) expect(await checked.fetch({})).to.equal('right');
      expect([checks, cache.statistics.total('local_hits')]).to.deep.equal([1, 3]);
    });

    it('survives that the registry forgets its scope', async () => {
      const { fetch, localHits, rows, loads, name } = lendTier({ rememberedScopesMax: 1 });
      for (const item of [1, 2]) rows.set(item, { item });
      await fetch();
      await fetch({ item: 2 }); // forgets item 1
      const commands = await keysOf({ name }, async () => expect(await fetch()).to.deep.equal({ item: 1 }));
      expect(commands).to.deep.equal([
        ['MGET', 'g:', 'g:item=1'], // a generation that is not remembered
        ['MGET', 'g:', 'g:item=1'],
      ]);
      expect([localHits(), loads]).to.deep.equal([1, [[1], [2]]]);
    });

    it('may lie in any partition, and depend on scopes of others', async () => {
      const { cache } = lendTier({ store: partitioned(memoryStore(), 8) });
      const { statistics } = cache;
      const tags = cache.namespace('tag', integer());
      const things = cache.namespace('thing', integer());
      let loads = 0;
      const entry = things.value('name', {
        load: ({ thing }) => (loads++, { thing }),
        dependsOn: ({ thing }) => [tags.scope({ tag: Number(thing) + 1 })],
      });
      const ids = Array.from({ length: 20 }, (_, thing) => ({ thing }));
      const read = async () => {
        expect(await entry.fetchMany(ids)).to.deep.equal(ids);
        await cache.settled();
      };
      await read();
      await read();
      expect([loads, statistics.total('local_hits')]).to.deep.equal([20, 20]);
      await tags.bump({ tag: 5 });
      await read();
      expect([loads, statistics.total('local_hits')]).to.deep.equal([21, 39]);
      await cache.bump();
      await read();
      expect([loads, statistics.total('local_hits')]).to.deep.equal([41, 39]);
    });

    it('is of its own cache, also of two with one name', async () => {
      const [one, other] = lendProcesses({}, {});
      await one!.fetch();
      await one!.fetch();
      expect([one!.cache.state.local!.entries, other!.cache.state.local!.entries]).to.deep.equal([1, 0]);
    });
  });

  describe('answers nothing', () => {
    it('after a bump, by this process or another', async () => {
      const [one, other] = lendProcesses({}, {});
      for (const [version, writer] of [one!, other!, one!].entries()) {
        one!.rows.set(1, { version });
        await writer.items.bump(ID);
        for (const { fetch } of [one!, other!, one!, other!]) expect(await fetch()).to.deep.equal({ version });
      }
      expect(new Set(one!.unverified())).to.deep.equal(new Set(['bumped']));
      // What is under an old vector is dropped as soon as a read finds it.
      expect(one!.cache.state.local!.entries).to.equal(1);
    });

    it('under the quarantine of a strict commit', async () => {
      const store = memoryStore();
      const { fetch, name, value, unverified, cache } = lendTier({ store });
      await fetch();
      const key = generationKey(keyPrefix(name), 'item=1');
      await withDeadline('quarantine', 5_000, (deadline) => store.quarantine([key], nonce(), 60_000, deadline));
      expect(await value.lookup(ID)).to.deep.equal({ outcome: 'bypass', reason: 'quarantine' });
      expect(unverified()).to.deep.equal(['quarantine']);
      expect(cache.state.local!.entries).to.equal(0);
    });

    it('without the generations: after FLUSHALL, or where one was evicted', async () => {
      const server = await privateRedis();
      const { fetch, rows, unverified } = lendTier({ url: server.url });
      rows.set(1, 'old');
      await fetch();
      rows.set(1, 'new');
      await lendRedis({ url: server.url }).flushall();
      expect(await fetch()).to.equal('new');
      expect(unverified()).to.deep.equal(['no_generation']);
    });

    it('while Redis is away: reads go to the source, as without a tier', async () => {
      const server = await privateRedis();
      const { fetch, rows, unverified, loads, localHits } = lendTier({ url: server.url, readDeadlineMs: 200 });
      rows.set(1, 'old');
      await fetch();
      rows.set(1, 'new');
      server.pause();
      try {
        expect(await fetch()).to.equal('new');
      } finally {
        server.resume();
      }
      expect(unverified()).to.deep.equal(['store_failure']);
      expect([loads, localHits()]).to.deep.equal([[[1], [1]], 0]);
    });

    it('while no relay keeps the bound', async () => {
      const name = uniqueName();
      const { fetch, rows, loads, cache } = lendTier({ name, maxStalenessMs: 30_000 });
      rows.set(1, 'old');
      for (let read = 0; read < 2; read++) await fetch();
      expect(loads).to.deep.equal([[1], [1]]);
      expect(cache.state.local).to.deep.equal({ entries: 0, bytes: 0 });
    });

    it('after close, which frees its memory', async () => {
      const { fetch, cache } = lendTier();
      await fetch();
      expect(cache.state.local!.entries).to.equal(1);
      await cache.close();
      expect(cache.state.local).to.deep.equal({ entries: 0, bytes: 0 });
    });
  });

  describe('ends a value with its TTL', () => {
    it('by the clock of a store in memory', async () => {
      const clock = manualClock();
      const { fetch, rows, unverified, localHits } = lendTier({ store: memoryStore({ clock }), clock, ttlMs: 1_000 });
      rows.set(1, 'old');
      await fetch();
      rows.set(1, 'new');
      clock.advance(998);
      expect(await fetch()).to.equal('old');
      expect(localHits()).to.equal(1);
      clock.advance(3);
      expect(await fetch()).to.equal('new');
      expect(unverified()).to.deep.equal(['expired']);
    });

    it('no later than Redis ends it, in the process that filled it and in others', async () => {
      const processes = lendProcesses({ ttlMs: 1_000 }, { ttlMs: 1_000 });
      for (const { fetch } of processes) await fetch();
      const looked = await processes[0]!.value.lookup(ID);
      if (looked.outcome !== 'hit') throw new Error(`a hit, not ${looked.outcome}`);
      const client = lendRedis();
      const untilItEnds = async ({ value, localHits }: (typeof processes)[0]) => {
        let outcome: string = 'hit';
        while (outcome === 'hit') {
          const isThere = (await client.exists(looked.vector.entryKey)) === 1;
          ({ outcome } = await value.lookup(ID));
          // Redis had dropped it before the lookup began.
          if (!isThere) expect(outcome).to.equal('miss');
        }
        expect(localHits()).to.be.at.least(1);
      };
      await Promise.all(processes.map(untilItEnds));
    });

    it('which counts the time for which the machine was suspended', async () => {
      const ms = { monotonic: 5_000, wall: 1_790_000_000_000, store: 1_790_000_000_000 };
      const clock = suspensionClock({ monotonicMs: () => ms.monotonic, wallMs: () => ms.wall });
      const store = memoryStore({ clock: { nowMs: () => ms.store } });
      const { fetch, rows } = lendTier({ store, clock, ttlMs: 60_000 });
      rows.set(1, 'old');
      await fetch();
      rows.set(1, 'new');
      ms.wall += 59_000;
      ms.store += 59_000;
      expect(await fetch()).to.equal('old');
      ms.wall += 2_000;
      ms.store += 2_000;
      expect(await fetch()).to.equal('new');
      ms.wall -= 3_600_000; // set back
      ms.monotonic += 61_000;
      ms.store += 61_000;
      rows.set(1, 'newer');
      expect(await fetch()).to.equal('newer');
    });

    it('in the one command of a read that began after it, and by a second one if it ends meanwhile', async () => {
      const clock = manualClock();
      const store = memoryStore({ clock });
      let reads = 0;
      let meanwhile = () => {};
      const read: Store['read'] = async (keys, deadline) => {
        reads++;
        const replies = await store.read(keys, deadline);
        meanwhile();
        return replies;
      };
      const { fetch, rows } = lendTier({ store: { ...store, read }, clock, ttlMs: 1_000, leases: false });
      rows.set(1, 'old');
      await fetch();
      rows.set(1, 'new');
      clock.advance(1_001);
      reads = 0;
      expect(await fetch()).to.equal('new');
      expect(reads).to.equal(1);
      rows.set(1, 'newest');
      meanwhile = () => clock.advance(1_001);
      reads = 0;
      expect(await fetch()).to.equal('newest');
      expect(reads).to.equal(2);
    });

    it('by the latest that the time of the store can be, if its reply takes long', async () => {
      const clock = manualClock();
      const store = memoryStore({ clock });
      const timeMs: Store['timeMs'] = async (deadline) => {
        const toldMs = await store.timeMs(deadline);
        clock.advance(100);
        return toldMs;
      };
      const rows = new Map<number, unknown>([[1, 'old']]);
      const options = { ...{ name: uniqueName(), clock, rows }, ttlMs: 1_000 };
      const [writer, reader] = [lendTier({ ...options, store }), lendTier({ ...options, store: { ...store, timeMs } })];
      await writer.fetch();
      for (let read = 0; read < 2; read++) expect(await reader.fetch()).to.equal('old');
      expect(reader.localHits()).to.equal(1);
      rows.set(1, 'new');
      clock.advance(905); // 1,005 since the lookup of the fill
      expect(await reader.fetch()).to.equal('new');
    });

    it('by a time of the store that is a minute old at most', async () => {
      const clock = manualClock();
      const store = memoryStore({ clock });
      let asked = 0;
      const timeMs: Store['timeMs'] = (deadline) => (asked++, store.timeMs(deadline));
      const { fetch, localHits } = lendTier({ store: { ...store, timeMs }, clock, ttlMs: 3_600_000 });
      await fetch(); // beside its lookup; its claim and its fill tell the time too
      clock.advance(60_000);
      await Promise.all([fetch(), fetch()]);
      expect(asked).to.equal(1);
      clock.advance(1);
      await fetch();
      await fetch();
      expect([asked, localHits()]).to.deep.equal([2, 4]); // two calls of one turn
    });

    it('and then takes what another process loaded anew', async () => {
      const clock = manualClock();
      const store = memoryStore({ clock });
      const name = uniqueName();
      const rows = new Map<number, unknown>([[1, 'old']]);
      const options = { ...{ name, store, clock, rows, ttlMs: 1_000 }, staleMs: 60_000 };
      const [one, other] = [lendTier(options), lendTier(options)];
      await one.fetch();
      await other.fetch();
      clock.advance(1_500);
      rows.set(1, 'new');
      expect(await one.fetch()).to.equal('old'); // stale: loads behind it
      expect(one.seen.events('staleHit')).to.have.length(1);
      expect(await other.fetch()).to.equal('new');
      expect([one.loads, other.loads]).to.deep.equal([[[1], [1]], []]);
      expect(await one.fetch()).to.equal('new');
      expect(one.localHits()).to.equal(1);
    });
  });

  describe('of which an entry is deleted', () => {
    it('by its owner lets the next read load', async () => {
      const { fetch, rows, value, loads } = lendTier();
      rows.set(1, 'old');
      await fetch();
      rows.set(1, 'new');
      expect(await value.delete(ID)).to.equal(true);
      expect(await fetch()).to.equal('new');
      expect(loads).to.deep.equal([[1], [1]]);
    });

    it('gets it back from no read that began before the delete', async () => {
      const name = uniqueName();
      const writer = lendTier({ name });
      const { cache } = lendTier({ name });
      const held = deferred();
      const isChecking = deferred();
      const declare = (to: typeof cache, schema: object) => {
        const source = { value: 'old', loads: 0 };
        const load = async () => (source.loads++, [{ ...source }]);
        return { source, entry: to.one('checked', { ...schema, load, by: () => ({}), value: (row) => row.value }) };
      };
      const stored = declare(writer.cache, {});
      const validate = async (value: unknown) => {
        isChecking.resolve();
        await held.promise;
        return { value };
      };
      const { entry, source } = declare(cache, { schema: { '~standard': { version: 1, vendor: 'spec', validate } } });
      await stored.entry.fetch({});
      await writer.cache.settled();
      source.value = 'new';
      const early = entry.fetch({});
      await isChecking.promise; // it has the reply
      await entry.delete({});
      held.resolve();
      expect(await early).to.equal('old');
      expect(await entry.fetch({})).to.equal('new');
    });

    it('by verifyRate lets the next read load, and other processes keep theirs for its TTL', async () => {
      const [one, other] = lendProcesses({ verifyRate: 1, verifyDelayMs: 0 }, {});
      await one!.fetch();
      await other!.fetch();
      one!.rows.set(1, { version: 2 }); // without a bump
      expect(await one!.fetch()).to.deep.equal({ version: 1 });
      expect(one!.seen.events('staleEntry').map(({ deleted }) => deleted)).to.deep.equal([true]);
      expect(await one!.fetch()).to.deep.equal({ version: 2 });
      expect(await other!.fetch()).to.deep.equal({ version: 1 });
      expect(other!.localHits()).to.equal(1);
    });
  });

  describe('whose reader changes a value', () => {
    interface Value {
      name: string;
      readonly tags: string[];
      readonly at?: Date;
      readonly deep?: { readonly at: Date; readonly plain: { n: number } };
    }

    it('throws where it is plain, and gives the next reader the value as it was', async () => {
      const { fetch, rows } = lendTier();
      rows.set(1, { name: 'one', tags: ['a'] });
      await fetch();
      const value = (await fetch()) as Value;
      expect(thrown(() => (value.name = 'mine'))).to.be.instanceOf(TypeError);
      expect(thrown(() => value.tags.push('mine'))).to.be.instanceOf(TypeError);
      expect(thrown(() => Object.assign(value, { more: 1 }))).to.be.instanceOf(TypeError);
      expect(await fetch()).to.deep.equal({ name: 'one', tags: ['a'] });
    });

    it('changes Dates, Maps, Sets and bytes of its own', async () => {
      const { value, cache, rows, localHits } = lendTier();
      const original = () => ({
        name: 'one',
        tags: ['a'],
        at: new Date(1_000),
        deep: { at: new Date(2_000), plain: { n: 1 } },
      });
      const rich = () => ({
        map: new Map([['a', { n: 1 }]]),
        set: new Set([1]),
        bytes: Buffer.from('abc'),
        none: undefined,
      });
      rows.set(1, original());
      rows.set(2, rich());
      const read = async () => {
        // Two calls of one turn, which share their lookup.
        const both = await Promise.all([
          value.fetch(ID),
          value.fetch(ID),
          value.fetch({ item: 2 }),
          value.fetch({ item: 2 }),
        ]);
        await cache.settled();
        return both as [Value, Value, ReturnType<typeof rich>, ReturnType<typeof rich>];
      };
      await read();
      for (let round = 0; round < 3; round++) {
        const [one, same, two, alike] = await read();
        expect([one, same, two, alike]).to.deep.equal([original(), original(), rich(), rich()]);
        one.at!.setTime(0);
        one.deep!.at.setTime(0);
        one.name = 'mine';
        expect(thrown(() => (one.deep!.plain.n = 7))).to.be.instanceOf(TypeError);
        two.map.get('a')!.n = 7;
        two.map.clear();
        two.set.add(7);
        two.bytes.fill(0);
        expect([same, alike]).to.deep.equal([original(), rich()]);
      }
      expect(localHits()).to.equal(12);
    });
  });

  describe('is bounded', () => {
    const fill = async ({ value, cache, rows }: ReturnType<typeof lendTier>, size = 100) => {
      for (let item = 0; item < 100; item++) rows.set(item, 'x'.repeat(size));
      await value.fetchMany([...rows.keys()].map((item) => ({ item })));
      await cache.settled();
    };

    it('by its entries, of which the least recently used goes first', async () => {
      const tier = lendTier({ local: { mode: 'verify', maxEntries: 10 }, store: memoryStore() });
      await fill(tier);
      expect(tier.cache.state.local!.entries).to.equal(10);
      expect(tier.cache.statistics.total('local_evictions')).to.equal(90);
      await tier.fetch({ item: 90 });
      await tier.fetch({ item: 5 }); // from the store: evicts 91
      expect(tier.localHits()).to.equal(1);
      await tier.fetch({ item: 90 });
      await tier.fetch({ item: 91 });
      expect(tier.localHits()).to.equal(2);
    });

    it('while a listener of evictions reads in turn', async () => {
      const tier = lendTier({ local: { mode: 'verify', maxEntries: 3 }, store: memoryStore() });
      const reads: Promise<unknown>[] = [];
      // What it reads enters, and so evicts.
      tier.cache.on('localEviction', () => {
        if (reads.length < 200) reads.push(tier.value.lookup({ item: reads.length % 5 }));
      });
      await fill(tier);
      await tier.cache.settled();
      expect(reads).to.have.length(200);
      await Promise.all(reads);
      expect(tier.cache.state.local!.entries).to.equal(3);
      await tier.value.fetchMany([...tier.rows.keys()].map((item) => ({ item })));
      expect(tier.loads).to.have.length(1);
    });

    it('by their bytes, also of one value', async () => {
      const tier = lendTier({ local: { mode: 'verify', maxBytes: 20_000 }, store: memoryStore() });
      await fill(tier);
      const { bytes, entries } = tier.cache.state.local!;
      expect(bytes).to.be.within(18_000, 20_000);
      expect(entries).to.be.within(10, 50);
      tier.rows.set(1_000, 'x'.repeat(20_000));
      await tier.fetch({ item: 1_000 });
      await tier.fetch({ item: 1_000 });
      expect(tier.localHits()).to.equal(0);
      expect(tier.cache.state.local!.bytes).to.be.at.most(20_000);
    });
  });

  it('is off by default', () => {
    expect(lendCache({ local: undefined } as never).cache.state.local).to.equal(undefined);
  });

  it('refuses an unknown mode, an unknown option, and a tier without a limit', () => {
    for (const local of [{}, { mode: 'verify' }, { mode: 'fast', maxEntries: 1 }, { ...LOCAL, maxAge: 1 }, null, 7]) {
      const error = thrown(() => lendCache({ local: local as never, store: memoryStore() }));
      expect(error.message).to.match(
        /^local must be \{ mode: 'verify' \} or \{ mode: 'track' \} with maxEntries, maxBytes or both, .* but got /,
      );
    }
    const error = thrown(() => lendCache({ local: { mode: 'verify', maxEntries: 0 }, store: memoryStore() }));
    expect(error.message).to.equal(
      'maxEntries of local must be an integer from 1 to 10000000, but got 0. Leave it out for no limit of entries.',
    );
  });
});
