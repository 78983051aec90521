import { expect } from 'chai';
import fc from 'fast-check';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type CacheOptions,
  GenerationalCache,
  integer,
  memoryStore,
  type ReadEvent,
  type Store,
  StoreUnavailableError,
} from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { withDeadline } from '../../lib/async/deadline.js';
import { nonce } from '../../lib/model/generation.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { type Deferred, deferred, eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { itWithoutTier } from '../support/local-tier/it-without-tier.js';
import { lendRedis, privateRedis, uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';
import { describeOnEachStore } from '../support/stores.js';

interface Entry {
  readonly leases?: boolean;
  readonly loadBatchMax?: number;
  readonly loadSoftTimeoutMs?: number;
  readonly loadHardTimeoutMs?: number;
}

type Options = Partial<CacheOptions<Record<never, never>, never>> & { entry?: Entry };

/** Loads of all processes, and what they read. */
interface Origin {
  version: number;
  readonly loads: { readonly by: string; readonly ids: readonly number[]; readonly end: Deferred<void> }[];
  /** Whether loads wait for the spec to end them. */
  isHeld: boolean;
  make(version: number): unknown;
}

/** Processes of one application, which share a store, and wait for each other for as long as a spec may take. */
function lendProcesses(open: () => Store, count: number, { entry = {}, ...options }: Options = {}) {
  const name = options.name ?? uniqueName();
  const origin: Origin = { version: 1, loads: [], isHeld: true, make: (version) => ({ version }) };
  const processes = Array.from({ length: count }, (_, index) => {
    const cache = new GenerationalCache({
      ...{ readDeadlineMs: READ_DEADLINE_MS, fillDeadlineMs: READ_DEADLINE_MS, loadSoftTimeoutMs: 60_000 },
      ...options,
      name,
      store: open(),
    });
    lend({
      what: `a process of ${name}`,
      close() {
        origin.isHeld = false;
        for (const { end } of origin.loads) end.resolve();
        return cache.close();
      },
    });
    const by = `process ${index}`;
    const items = cache.namespace('item', integer());
    const value = items.one('value', {
      ...entry,
      async load(ids) {
        const { version } = origin;
        const load = { by, ids: ids.map(({ item }) => Number(item)), end: deferred() };
        origin.loads.push(load);
        if (origin.isHeld) await load.end.promise;
        return ids.map(({ item }) => ({ item, value: origin.make(version) }));
      },
      by: ({ item }) => ({ item }),
      value: (row) => row.value as { version: number },
    });
    const fetch = (item = 1) => value.fetch({ item });
    return { by, cache, items, value, fetch };
  });
  return { name, origin, processes };
}

/** Waits until a process waits for the loads of others, with this many entries. */
const elsewhere = ({ cache }: { cache: GenerationalCache }, entries = 1) =>
  eventually(() => expect(cache.state.loads.elsewhere).to.equal(entries));

describeOnEachStore('a lease', ({ place }) => {
  const lendAll = (count: number, options?: Options) => {
    const at = place();
    return { ...lendProcesses(() => at.open(), count, options), at };
  };

  itWithoutTier('lets one process load a cold entry, and the readers of all others take its value', async () => {
    const { origin, processes } = lendAll(6);
    const reads = processes.flatMap(({ fetch }) => Array.from({ length: 10 }, () => fetch()));
    await eventually(() => {
      expect(origin.loads).to.have.length(1);
      expect(processes.filter(({ cache }) => cache.state.loads.elsewhere === 1)).to.have.length(5);
    });
    origin.loads[0]!.end.resolve();
    const values = await Promise.all(reads);
    expect(values).to.deep.equal(Array(60).fill({ version: 1 }));
    values[0]!.version = 7; // a value of each reader's own
    expect(values.slice(1)).to.deep.equal(Array(59).fill({ version: 1 }));
    expect(origin.loads).to.have.length(1);
    const counts = processes.map(({ cache }) => cache.statistics.total('queries_run')).toSorted();
    expect(counts).to.deep.equal([0, 0, 0, 0, 0, 1]);
    for (const { cache } of processes) {
      expect(cache.state.loads).to.deep.equal({ running: 0, overdue: 0, waiting: 0, elsewhere: 0 });
    }
  });

  it('is not waited for by a reader after a bump', async () => {
    const { origin, processes } = lendAll(2);
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    const before = one.fetch();
    await eventually(() => expect(origin.loads).to.have.length(1));
    const waiting = other.fetch();
    await elsewhere(other);
    origin.version = 2;
    await one.items.bump({ item: 1 });
    await eventually(() => expect(origin.loads).to.have.length(2)); // the one that waits looks up anew, and loads
    expect(origin.loads[1]!.by).to.equal(other.by);
    origin.loads[1]!.end.resolve();
    expect(await waiting).to.deep.equal({ version: 2 });
    expect(await other.fetch()).to.deep.equal({ version: 2 });
    origin.loads[0]!.end.resolve();
    expect(await before).to.deep.equal({ version: 1 });
    await one.cache.settled();
    expect(await one.fetch()).to.deep.equal({ version: 2 }); // the late fill is harmless
  });

  it('that moved answers all readers that waited for it, also where they join a load that waits for room', async () => {
    const { origin, processes } = lendAll(2, { loadsMax: 1 });
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    const before = one.fetch();
    await eventually(() => expect(origin.loads).to.have.length(1));
    const waiting = other.fetch();
    await elsewhere(other);
    const joined = other.fetch(); // joins the one that waits
    expect((await other.value.lookup({ item: 1 })).outcome).to.equal('miss');
    const elsewhereItem = other.fetch(9); // takes the room
    await eventually(() => expect(origin.loads).to.have.length(2));
    origin.version = 2;
    await one.items.bump({ item: 1 });
    const after = other.fetch();
    await eventually(() => expect(other.cache.state.loads).to.deep.include({ waiting: 1, elsewhere: 0 }));
    origin.isHeld = false;
    for (const { end } of origin.loads) end.resolve();
    expect(await Promise.all([waiting, joined, after])).to.deep.equal(Array(3).fill({ version: 2 }));
    await Promise.all([before, elsewhereItem]);
  });

  it('ends when the load fails: every process loads once, and its readers get its error', async () => {
    const { origin, processes } = lendAll(3, { leaseTtlMs: 60_000 });
    const reads = processes.map(({ fetch }) => rejection(fetch()));
    await eventually(() =>
      expect(processes.filter(({ cache }) => cache.state.loads.elsewhere === 1)).to.have.length(2),
    );
    const failure = new Error('no route to host');
    origin.isHeld = false;
    origin.make = () => {
      throw failure;
    };
    origin.loads[0]!.end.resolve();
    expect(await Promise.all(reads)).to.deep.equal([failure, failure, failure]);
    expect(origin.loads.map(({ by }) => by).toSorted()).to.deep.equal(processes.map(({ by }) => by));
  });

  it('ends when the value can’t be stored: each process loads for its own readers, and waits for no other', async () => {
    const { origin, processes } = lendAll(3, { leaseTtlMs: 60_000 });
    origin.make = (version) => ({ version, render() {} });
    const reads = processes.map(({ fetch }) => fetch());
    await eventually(() =>
      expect(processes.filter(({ cache }) => cache.state.loads.elsewhere === 1)).to.have.length(2),
    );
    origin.isHeld = false;
    origin.loads[0]!.end.resolve();
    for (const value of await Promise.all(reads)) expect(value).to.have.property('version', 1);
    expect(origin.loads).to.have.length(3);

    for (const { cache } of processes) await cache.settled();
    origin.isHeld = true;
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    const later = [one.fetch(), other.fetch()];
    await eventually(() => expect(origin.loads).to.have.length(5)); // at once
    for (const { end } of origin.loads) end.resolve();
    await Promise.all(later);
    expect(one.cache.statistics.total('misses', { cause: 'unstorable' })).to.equal(1);
    expect(one.cache.statistics.total('fills')).to.equal(0);
    expect((await one.value.lookup({ item: 1 })).outcome).to.equal('miss');
  });

  it('of a batch is loaded and filled before the batch waits for the rest', async () => {
    const { origin, processes } = lendAll(2);
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    const first = one.fetch(1);
    await eventually(() => expect(origin.loads).to.have.length(1));
    const batch = other.value.fetchMany([{ item: 1 }, { item: 2 }, { item: 3 }]);
    await eventually(() => expect(origin.loads).to.have.length(2));
    expect(origin.loads[1]!.ids).to.deep.equal([2, 3]);
    origin.loads[1]!.end.resolve();
    await eventually(async () => expect((await one.value.lookup({ item: 3 })).outcome).to.equal('hit'));
    origin.loads[0]!.end.resolve();
    expect(await first).to.deep.equal({ version: 1 });
    expect(await batch).to.deep.equal([{ version: 1 }, { version: 1 }, { version: 1 }]);
  });

  it('makes no two batches wait for each other, in whatever order they name their ids', async () => {
    const { origin, processes } = lendAll(3, { entry: { loadBatchMax: 1 }, loadsMax: 1 });
    const ids = Array.from({ length: 12 }, (_, item) => ({ item }));
    const batches = processes.map(({ value }, i) => value.fetchMany(i % 2 === 0 ? ids : ids.toReversed()));
    origin.isHeld = false;
    await eventually(() => expect(origin.loads).to.have.length.above(0));
    for (const { end } of origin.loads) end.resolve();
    expect(await Promise.all(batches)).to.deep.equal(Array(3).fill(Array(12).fill({ version: 1 })));
    expect(origin.loads).to.have.length(12);
  });

  it('is renewed for as long as its load runs, up to the soft timeout', async () => {
    const { origin, processes } = lendAll(2, { leaseTtlMs: 300 });
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    const first = one.fetch();
    await eventually(() => expect(origin.loads).to.have.length(1));
    const second = other.fetch();
    await elsewhere(other);
    await sleep(900);
    expect(origin.loads).to.have.length(1);
    origin.loads[0]!.end.resolve();
    expect(await Promise.all([first, second])).to.deep.equal([{ version: 1 }, { version: 1 }]);
    expect(origin.loads).to.have.length(1);
  });

  it('is waited for until the soft timeout, and then the reader loads by itself', async () => {
    const { origin, processes } = lendAll(2, { entry: { loadSoftTimeoutMs: 100 }, leaseTtlMs: 60_000 });
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    const first = one.fetch();
    await eventually(() => expect(origin.loads).to.have.length(1));
    const second = other.fetch();
    await eventually(() => expect(origin.loads).to.have.length(2));
    expect(origin.loads[1]!.by).to.equal(other.by);
    for (const { end } of origin.loads) end.resolve();
    expect(await Promise.all([first, second])).to.deep.equal([{ version: 1 }, { version: 1 }]);
  });

  it('is not taken by an entry, or a cache, that has leases switched off', async () => {
    for (const options of [{ entry: { leases: false } }, { leases: false }]) {
      const { origin, processes } = lendAll(2, options);
      const reads = processes.map(({ fetch }) => fetch());
      await eventually(() => expect(origin.loads).to.have.length(2));
      for (const { end } of origin.loads) end.resolve();
      await Promise.all(reads);
    }
  });

  it('is not waited for under the quarantine of a strict commit that came meanwhile', async () => {
    const { name, origin, processes, at } = lendAll(2);
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    const first = one.fetch();
    await eventually(() => expect(origin.loads).to.have.length(1));
    const bypasses: ReadEvent[] = [];
    other.cache.on('read', (event) => bypasses.push(event));
    const second = other.fetch();
    await elsewhere(other);
    const store = at.open();
    lend({ what: 'a writer’s store', close: () => store.close() });
    const key = generationKey(keyPrefix(name), 'item=1');
    await withDeadline('quarantine', 5_000, (deadline) => store.quarantine([key], nonce(), 60_000, deadline));
    await eventually(() => expect(origin.loads).to.have.length(2));
    for (const { end } of origin.loads) end.resolve();
    await Promise.all([first, second]);
    await other.cache.settled();
    expect(other.cache.statistics.total('fills')).to.equal(0);
  });

  it('of a load that its callers gave up on is failed, and its late value is filled all the same', async () => {
    const { origin, processes } = lendAll(2, { entry: { loadHardTimeoutMs: 100 } });
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    const first = rejection(one.fetch());
    await eventually(() => expect(origin.loads).to.have.length(1));
    const second = rejection(other.fetch());
    await elsewhere(other);
    expect(await first).to.have.property('code', 'LOAD_TIMEOUT');
    await eventually(() => expect(origin.loads).to.have.length(2)); // without a lease
    expect(await second).to.have.property('code', 'LOAD_TIMEOUT');
    origin.loads[0]!.end.resolve();
    await eventually(async () => expect((await other.value.lookup({ item: 1 })).outcome).to.equal('hit'));
  });

  it('is waited for by no timer after close(), and the readers that waited reject', async () => {
    const { origin, processes } = lendAll(2, { closeDeadlineMs: 50 });
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    void one.fetch();
    await eventually(() => expect(origin.loads).to.have.length(1));
    const waiting = rejection(other.fetch());
    await elsewhere(other);
    await other.cache.close();
    expect(await waiting).to.have.property('code', 'CLOSED');
    expect(other.cache.state.loads.elsewhere).to.equal(0);
  });

  itWithoutTier('of an entry that can’t be decoded is taken, and the entry is replaced', async () => {
    const { origin, processes, at } = lendAll(3);
    origin.isHeld = false;
    const [one] = processes as [(typeof processes)[0]];
    await one.fetch();
    await one.cache.settled();
    const looked = await one.value.lookup({ item: 1 });
    const { vector } = looked as Extract<typeof looked, { outcome: 'hit' }>;
    const store = at.open();
    lend({ what: 'another program', close: () => store.close() });
    const bytes = Buffer.from('another format');
    const entries = [{ key: vector.entryKey, bytes, ttlMs: 60_000, guards: [] }];
    await withDeadline('fill', 5_000, (deadline) =>
      store.fill({ guards: [], entries, asOfMs: Number.MAX_SAFE_INTEGER, lease: undefined }, deadline),
    );
    origin.isHeld = true;
    origin.version = 2;
    const reads = processes.map(({ fetch }) => fetch());
    await eventually(() =>
      expect(processes.filter(({ cache }) => cache.state.loads.elsewhere === 1)).to.have.length(2),
    );
    expect(origin.loads).to.have.length(2);
    origin.loads[1]!.end.resolve();
    expect(await Promise.all(reads)).to.deep.equal(Array(3).fill({ version: 2 }));
    expect(origin.loads).to.have.length(2);
  });

  it('gives no reader what is older than a bump before it, in random histories of three processes', async () => {
    const step = fc.record({
      what: fc.constantFrom('read', 'read', 'read', 'bump', 'end', 'pause'),
      process: fc.nat({ max: 2 }),
      item: fc.nat({ max: 1 }),
    });
    const at = place();
    const property = fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
      const { origin, processes } = lendProcesses(() => at.open(), 3, { name: uniqueName() });
      const bumped = [1, 1];
      const reads: Promise<void>[] = [];
      for (const { what, process, item } of steps) {
        const { fetch, items } = processes[process]!;
        if (what === 'read') {
          const least = bumped[item]!;
          reads.push(fetch(item).then((value) => void expect(value!.version).to.be.at.least(least)));
        } else if (what === 'bump') {
          const version = ++origin.version;
          await items.bump({ item });
          bumped[item] = version;
        } else if (what === 'end') origin.loads.find(({ end }) => end !== undefined)?.end.resolve();
        else await sleep(3);
      }
      origin.isHeld = false;
      for (const { end } of origin.loads) end.resolve();
      await Promise.all(reads);
      for (const { cache } of processes) await cache.settled();
      for (const { cache } of processes) {
        expect(cache.state.loads).to.deep.equal({ running: 0, overdue: 0, waiting: 0, elsewhere: 0 });
      }
    });
    await fc.assert(property, { numRuns: 25 });
  });
});

describe('a lease that can’t be had', () => {
  const refused = () => Promise.reject(new StoreUnavailableError('refused by the spec', true));

  it('holds up no load: a store that refuses claims makes every process load', async () => {
    const memory = memoryStore();
    const { origin, processes } = lendProcesses(() => ({ ...memory, claim: refused }), 2);
    const failures: string[] = [];
    processes[0]!.cache.on('storeFailure', ({ operation }) => failures.push(operation));
    const reads = processes.map(({ fetch }) => fetch());
    await eventually(() => expect(origin.loads).to.have.length(2));
    for (const { end } of origin.loads) end.resolve();
    expect(await Promise.all(reads)).to.deep.equal([{ version: 1 }, { version: 1 }]);
    expect(failures).to.deep.equal(['lease']);
  });

  it('lets the readers that waited load when the store is lost meanwhile', async () => {
    const memory = memoryStore();
    const state = { isDown: false };
    const open = (): Store => ({
      ...memory,
      claim: (...args) => (state.isDown ? refused() : memory.claim(...args)),
      read: (...args) => (state.isDown ? refused() : memory.read(...args)),
    });
    const { origin, processes } = lendProcesses(open, 2);
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    const first = one.fetch();
    await eventually(() => expect(origin.loads).to.have.length(1));
    const second = other.fetch();
    await elsewhere(other);
    state.isDown = true;
    await eventually(() => expect(origin.loads).to.have.length(2));
    for (const { end } of origin.loads) end.resolve();
    await Promise.all([first, second]);
  });

  it('in a Redis without room keeps no process waiting', async () => {
    const server = await privateRedis();
    const admin = lendRedis({ url: server.url });
    const open = () => redisStore(lendRedis({ url: server.url, lazyConnect: true }));
    const { origin, processes } = lendProcesses(open, 3);
    origin.isHeld = false;
    await Promise.all(processes.map(({ fetch }) => fetch(0))); // minted
    await Promise.all(processes.map(({ cache }) => cache.settled()));
    await admin.config('SET', 'maxmemory-policy', 'noeviction');
    // A lease that was taken while there was room, whose fill is refused.
    origin.isHeld = true;
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    await one.items.bump({ item: 0 });
    const first = one.fetch(0);
    await eventually(() => expect(origin.loads).to.have.length(2));
    const second = other.fetch(0);
    await elsewhere(other);
    await admin.config('SET', 'maxmemory', '1');
    origin.isHeld = false;
    origin.loads[1]!.end.resolve();
    expect(await Promise.all([first, second])).to.deep.equal([{ version: 1 }, { version: 1 }]);
    expect(await processes[2]!.fetch(0)).to.deep.equal({ version: 1 });
    expect(one.cache.statistics.total('refused_fills', { reason: 'store_failure' })).to.equal(1);
  });

  it('is neither taken nor waited for by a reader whose own bump failed', async () => {
    const memory = memoryStore();
    const state = { isRefused: false };
    const open = (): Store => ({ ...memory, bump: (...args) => (state.isRefused ? refused() : memory.bump(...args)) });
    const { origin, processes } = lendProcesses(open, 2, { breakerRetryMs: 60_000 });
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    const first = one.fetch();
    await eventually(() => expect(origin.loads).to.have.length(1));
    const second = other.fetch();
    await elsewhere(other);
    origin.version = 2;
    state.isRefused = true;
    await rejection(other.items.bump({ item: 1 }));
    const own = other.fetch();
    await eventually(() => expect(origin.loads).to.have.length(2));
    origin.isHeld = false;
    for (const { end } of origin.loads) end.resolve();
    expect(await own).to.deep.equal({ version: 2 });
    expect(await first).to.deep.equal({ version: 1 });
    expect(await second).to.deep.equal({ version: 2 }); // what the holder filled is old for this process
  });
});
