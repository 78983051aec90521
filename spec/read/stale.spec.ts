import { expect } from 'chai';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type CacheOptions,
  type Entry,
  GenerationalCache,
  integer,
  memoryStore,
  type StaleHitEvent,
  type Store,
  StoreUnavailableError,
} from '../../lib/index.js';
import { withDeadline } from '../../lib/async/deadline.js';
import { nonce } from '../../lib/model/generation.js';
import { freshnessKey, generationKey, keyPrefix, markKey } from '../../lib/model/key.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { isBeat, recordCommands } from '../support/commands.js';
import { type Deferred, deferred, eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { lendRedis, privateRedis, uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';
import { describeOnEachStore } from '../support/stores.js';

const TTL_MS = 60;

type Options = Partial<CacheOptions<Record<never, never>, never>>;

interface Origin {
  version: number;
  error: Error | undefined;
  /** What each load waits for, while loads are held. */
  held: Deferred<void> | undefined;
  loads: number;
}

/** One process: a cache whose values have a short TTL, of a loader that the spec controls. */
function lendProcess(store: Store, name: string, origin: Origin, options: Options) {
  const cache = new GenerationalCache({
    ...{ ttlMs: TTL_MS, ttlJitter: 0, readDeadlineMs: READ_DEADLINE_MS, fillDeadlineMs: READ_DEADLINE_MS },
    ...options,
    name,
    store,
  });
  lend({
    what: `a process of ${name}`,
    close() {
      origin.held?.resolve();
      origin.held = undefined;
      return cache.close();
    },
  });
  const items = cache.namespace('item', integer());
  const value = items.one('value', {
    async load(ids) {
      origin.loads++;
      const { version } = origin;
      await origin.held?.promise;
      if (origin.error) throw origin.error;
      return ids.filter(({ item }) => Number(item) > 0).map(({ item }) => ({ item, tags: [version] }));
    },
    by: ({ item }) => ({ item }),
    value: ({ tags }) => ({ tags }),
  });
  const events: StaleHitEvent[] = [];
  cache.on('staleHit', (event) => events.push(event));
  const version = async (item = 1) => (await value.fetch({ item }))?.tags[0];
  return { name, cache, items, value, events, version };
}

const outcomeOf = async (value: Entry<{ item: number }, unknown>, item = 1) => {
  const looked = await value.lookup({ item });
  return looked.outcome === 'bypass' ? looked.reason : looked.outcome;
};

describeOnEachStore('a value beyond its TTL', ({ place }) => {
  /** Processes whose entries of items 1 and 2 were stored as version 1, and are beyond their TTL; the source is at 2. */
  async function lendStale(options: Options, count = 1) {
    const at = place();
    const name = options.name ?? uniqueName();
    const origin: Origin = { version: 1, error: undefined, held: undefined, loads: 0 };
    const processes = Array.from({ length: count }, () => lendProcess(at.open(), name, origin, options));
    const [one] = processes as [(typeof processes)[0]];
    await one.value.fetchMany([{ item: 1 }, { item: 2 }, { item: 0 }]);
    await one.cache.settled();
    await sleep(TTL_MS + 5);
    origin.version = 2;
    origin.loads = 0;
    return { at, origin, processes, ...one };
  }

  describe('within staleMs', () => {
    it('is served at once, while one process loads it anew', async () => {
      const { origin, processes } = await lendStale({ staleMs: 60_000 }, 4);
      origin.held = deferred();
      for (let round = 0; round < 3; round++) {
        expect(await Promise.all(processes.map(({ version }) => version()))).to.deep.equal([1, 1, 1, 1]);
        await eventually(() => expect(origin.loads).to.equal(1));
      }
      origin.held.resolve();
      origin.held = undefined;
      await eventually(async () => expect(await processes[3]!.version()).to.equal(2));
      expect(origin.loads).to.equal(1);
    });

    it('is marked: by the outcome of a lookup, an event, a counter, and to the caller that asks', async () => {
      const { origin, cache, value, events } = await lendStale({ staleMs: 60_000 });
      origin.held = deferred();
      const looked = await value.lookup({ item: 1 });
      expect(looked).to.deep.include({ outcome: 'stale', value: { tags: [1] } });
      expect(looked).to.have.property('staleForMs').that.is.within(0, 10_000);
      const told: number[] = [];
      const onStale = ({ index, reason, staleForMs }: { index: number; reason: string; staleForMs: number }) => {
        expect(reason).to.equal('refreshing');
        expect(staleForMs).to.be.within(0, 10_000);
        told.push(index);
      };
      const ids = [1, 2, 1].map((item) => ({ item }));
      expect(await value.fetchMany(ids, { onStale })).to.deep.equal([{ tags: [1] }, { tags: [1] }, { tags: [1] }]);
      expect(told.toSorted()).to.deep.equal([0, 1, 2]);
      expect(events.map(({ path, reason }) => `${path} ${reason}`)).to.deep.equal([
        'item=1 refreshing', // the lookup
        'item=1 refreshing',
        'item=2 refreshing',
      ]);
      expect(cache.statistics.total('stale_hits', { reason: 'refreshing' })).to.equal(3);
      expect(cache.statistics.total('hits')).to.equal(0);
      expect(cache.statistics.total('misses')).to.equal(3); // before they were stored
    });

    it('is a value of each caller’s own', async () => {
      const { origin, value } = await lendStale({ staleMs: 60_000 });
      origin.held = deferred();
      const [first, second] = await Promise.all([value.fetch({ item: 1 }), value.fetch({ item: 1 })]);
      first!.tags.push(7);
      expect(second).to.deep.equal({ tags: [1] });
    });

    it('may be a cached absence', async () => {
      const { origin, value } = await lendStale({ staleMs: 60_000 });
      origin.held = deferred();
      expect(await value.lookup({ item: 0 })).to.deep.include({ outcome: 'stale', value: undefined });
      expect(await value.fetch({ item: 0 })).to.equal(undefined);
    });

    it('is not served after a bump', async () => {
      const { items, version, events } = await lendStale({ staleMs: 60_000 });
      await items.bump({ item: 1 });
      expect(await version()).to.equal(2);
      expect(events).to.deep.equal([]);
    });

    it('is not served under the quarantine of a strict commit', async () => {
      const { at, name, value, version, events } = await lendStale({ staleMs: 60_000 });
      const store = at.open();
      lend({ what: 'a writer’s store', close: () => store.close() });
      const key = generationKey(keyPrefix(name), 'item=1');
      await withDeadline('quarantine', 5_000, (deadline) => store.quarantine([key], nonce(), 60_000, deadline));
      expect(await outcomeOf(value)).to.equal('quarantine');
      expect(await version()).to.equal(2);
      expect(events).to.deep.equal([]);
    });

    it('is not served without a relay that keeps the bound', async () => {
      const { at, name, value, version, events } = await lendStale({ staleMs: 60_000, maxStalenessMs: 3_000 });
      // It was never stored: without a relay each read is a bypass. Now a relay keeps the bound for a while.
      const store = at.open();
      lend({ what: 'a relay’s store', close: () => store.close() });
      const prefix = keyPrefix(name);
      const run = <T>(work: Parameters<typeof withDeadline<T>>[2]) => withDeadline('renew', 5_000, work);
      const timeMs = await run((deadline) => store.timeMs(deadline));
      const { incarnation } = store;
      const repair = { globalKey: generationKey(prefix, ''), markKey: markKey(prefix), mark: 'mark of a spec' };
      await run((deadline) =>
        store.repair({ ...repair, incarnation: incarnation!, attempt: nonce(), ttlMs: 1 }, deadline),
      );
      const key = freshnessKey(prefix, 3_000);
      const renewal = { markKey: markKey(prefix), mark: 'mark of a spec', incarnation: incarnation!, asOfMs: 0 };
      const keys = [{ key, untilMs: timeMs + 2_900 }];
      await run((deadline) => store.renew({ ...renewal, keys, nonce: nonce() }, deadline));
      await eventually(async () => {
        await version();
        expect(await outcomeOf(value)).to.equal('hit');
      });
      await sleep(TTL_MS + 5);
      expect(await outcomeOf(value)).to.equal('stale');
      events.length = 0;
      await run((deadline) => store.delete([key as never], deadline));
      expect(await outcomeOf(value)).to.equal('not_fresh');
      expect(await version()).to.equal(2);
      expect(events).to.deep.equal([]);
    });

    it('goes on being served while its loads fail, and the source is asked about once a second', async () => {
      const { origin, version, events } = await lendStale({ staleMs: 60_000 });
      origin.error = new Error('no route to host');
      const untilMs = performance.now() + 500;
      let reads = 0;
      for (; performance.now() < untilMs; reads++) {
        expect(await version()).to.equal(1);
        await sleep(5);
      }
      expect(origin.loads).to.equal(1);
      expect(events).to.have.length(reads);
      origin.error = undefined;
      await eventually(async () => expect(await version()).to.equal(2));
    });

    it('reaches the caller whose onStale throws, and the error is a warning of the process', async () => {
      const { value } = await lendStale({ staleMs: 60_000 });
      const warned = once(process, 'warning');
      const onStale = () => {
        throw new Error('thrown by the caller');
      };
      expect(await value.fetch({ item: 1 }, { onStale })).to.deep.equal({ tags: [1] });
      const [warning] = (await warned) as [Error];
      expect(warning.message).to.equal('A gencache onStale threw: Error: thrown by the caller');
    });
  });

  describe('beyond staleMs', () => {
    it('is a miss, and gone from the store', async () => {
      const { value, version, origin } = await lendStale({ staleMs: 1 });
      await sleep(5);
      expect(await outcomeOf(value)).to.equal('miss');
      expect(await version()).to.equal(2);
      expect(origin.loads).to.equal(1);
    });
  });

  describe('within staleOnErrorMs', () => {
    it('is not served while the loader works', async () => {
      const { version, events, cache } = await lendStale({ staleOnErrorMs: 60_000 });
      expect(await version()).to.equal(2);
      expect(events).to.deep.equal([]);
      await cache.settled();
      expect(await version()).to.equal(2);
    });

    it('is served if the load fails, with its error', async () => {
      const { origin, value, events, cache } = await lendStale({ staleOnErrorMs: 60_000 });
      origin.error = new Error('no route to host');
      const told: unknown[] = [];
      const onStale = ({ reason, error }: { reason: string; error?: unknown }) => told.push(reason, error);
      expect(await value.fetch({ item: 1 }, { onStale })).to.deep.equal({ tags: [1] });
      expect(told).to.deep.equal(['error', origin.error]);
      expect(events).to.have.length(1);
      expect(events[0]).to.deep.include({ path: 'item=1', reason: 'error', error: origin.error });
      expect(cache.statistics.total('stale_hits')).to.equal(1);
      expect(cache.statistics.total('misses')).to.equal(3); // before they were stored
      expect(await rejection(value.fetch({ item: 3 }))).to.equal(origin.error); // never stored
    });

    it('is served if the load takes longer than the soft timeout, and the late value is stored', async () => {
      const { origin, version, events } = await lendStale({ staleOnErrorMs: 60_000, loadSoftTimeoutMs: 50 });
      origin.held = deferred();
      expect(await Promise.all([version(), version()])).to.deep.equal([1, 1]);
      expect(events.map(({ reason }) => reason)).to.deep.equal(['slow', 'slow']);
      origin.held.resolve();
      origin.held = undefined;
      await eventually(async () => expect(await version()).to.equal(2));
      expect(events).to.have.length(2);
    });

    it('is served to a reader that waits for another process whose load fails', async () => {
      const { origin, processes } = await lendStale({ staleOnErrorMs: 60_000 }, 2);
      const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
      origin.held = deferred();
      const first = one.version();
      await eventually(() => expect(origin.loads).to.equal(1));
      const second = other.version();
      await eventually(() => expect(other.cache.state.loads.elsewhere).to.equal(1));
      origin.error = new Error('no route to host');
      origin.held.resolve();
      expect(await Promise.all([first, second])).to.deep.equal([1, 1]);
    });

    it('is not given to a reader that began after a bump and joined the failing load', async () => {
      const { origin, items, value } = await lendStale({ staleOnErrorMs: 60_000, loadsMax: 1 });
      origin.held = deferred();
      const first = rejection(value.fetch({ item: 3 })); // takes the room
      await eventually(() => expect(origin.loads).to.equal(1));
      const before = value.fetch({ item: 1 });
      await new Promise(setImmediate);
      expect(await outcomeOf(value)).to.equal('miss'); // behind the lookup of `before`
      await items.bump({ item: 1 });
      const after = rejection(value.fetch({ item: 1 })); // joins the load that waits for room
      await value.lookup({ item: 1 });
      origin.error = new Error('no route to host');
      origin.held.resolve();
      origin.held = undefined;
      expect(await before).to.deep.equal({ tags: [1] });
      expect(await after).to.equal(origin.error);
      await first;
    });

    it('begins where staleMs ends', async () => {
      const { origin, version, events } = await lendStale({ staleMs: 1, staleOnErrorMs: 60_000 });
      await sleep(5);
      origin.error = new Error('no route to host');
      expect(await version()).to.equal(1);
      expect(events.map(({ reason }) => reason)).to.deep.equal(['error']);
    });
  });

  it('is a miss for a cache without a grace, which shares the store with one that has it', async () => {
    const { at, name, origin } = await lendStale({ staleMs: 60_000 });
    const other = lendProcess(at.open(), name, origin, {});
    expect(await outcomeOf(other.value)).to.equal('miss');
    expect(await other.version()).to.equal(2);
  });
});

describe('a value beyond its TTL, within staleMs,', () => {
  it('is not served to the process whose own bump failed', async () => {
    const memory = memoryStore();
    const origin: Origin = { version: 1, error: undefined, held: undefined, loads: 0 };
    const store: Store = { ...memory, bump: () => Promise.reject(new StoreUnavailableError('refused', true)) };
    const { items, value, version, cache } = lendProcess(store, uniqueName(), origin, { staleMs: 60_000 });
    await version();
    await cache.settled();
    await sleep(TTL_MS + 5);
    expect(await outcomeOf(value)).to.equal('stale');
    origin.version = 2;
    await rejection(items.bump({ item: 1 }));
    expect(await outcomeOf(value)).to.equal('unbumped');
    expect(await version()).to.equal(2);
  });

  it('asks for no second lease at each of its hits while its loads fail', async () => {
    const memory = memoryStore();
    const origin: Origin = { version: 1, error: undefined, held: undefined, loads: 0 };
    let claims = 0;
    const store: Store = { ...memory, claim: (...args) => (claims++, memory.claim(...args)) };
    const { version, cache } = lendProcess(store, uniqueName(), origin, { staleMs: 60_000 });
    await version();
    await cache.settled();
    await sleep(TTL_MS + 5);
    origin.error = new Error('no route to host');
    await version();
    await cache.settled();
    claims = 0;
    for (let i = 0; i < 20; i++) expect(await version()).to.equal(1);
    await cache.settled();
    expect(claims).to.equal(0);
  });

  it('costs one command, and the first read of a process asks for the time besides', async () => {
    const name = uniqueName();
    const origin: Origin = { version: 1, error: undefined, held: undefined, loads: 0 };
    const { url } = await privateRedis();
    const lendOne = () =>
      lendProcess(redisStore(lendRedis({ url, lazyConnect: true })), name, origin, { staleMs: 60_000 });
    const one = lendOne();
    await one.version();
    await one.cache.settled();
    const reader = lendOne();
    const connected = new Promise((resolve) => reader.cache.on('storeUp', resolve));
    await connected;
    await one.version(); // minted, and remembered
    const commands = async (work: () => Promise<unknown>) =>
      (await recordCommands(url, work, { keyless: true })).commands
        .filter((command) => !isBeat(command) && !/^(?:HELLO|INFO|CLIENT|SUBSCRIBE)$/.test(command[0]!))
        .map(([command]) => command);
    origin.held = deferred();
    expect(await commands(() => reader.value.lookup({ item: 1 }))).to.have.members(['MGET', 'MGET', 'TIME']);
    expect(await commands(() => reader.value.lookup({ item: 1 }))).to.deep.equal(['MGET']);
    const redis = lendRedis({ url });
    const [key] = await redis.keys(`*{${name}:0}:e:*`);
    expect(await redis.pttl(key!)).to.be.within(50_000, 60_000 + TTL_MS);
  });
});

describeOnEachStore('earlyRefresh', ({ place }) => {
  it('loads a hot entry anew before it expires, once, and no reader waits for it', async () => {
    const at = place();
    const name = uniqueName();
    const origin: Origin = { version: 1, error: undefined, held: undefined, loads: 0 };
    // A load of about 50 ms, and a TTL of 1 s: with 20 times as much weight the refresh comes in the first second.
    const options = { ttlMs: 1_000, earlyRefresh: 20 };
    const processes = [1, 2].map(() => lendProcess(at.open(), name, origin, options));
    const [one, other] = processes as [(typeof processes)[0], (typeof processes)[0]];
    origin.held = deferred();
    const first = one.version();
    await sleep(50);
    origin.held.resolve();
    origin.held = undefined;
    await first;
    await one.cache.settled();
    origin.version = 2;
    await eventually(async () => {
      const [a, b] = await Promise.all([one.version(), other.version()]);
      expect([a, b]).to.deep.equal([2, 2]);
    });
    for (const { cache, events } of processes) {
      expect(events).to.deep.equal([]);
      expect(cache.statistics.total('misses', { cause: 'not_filled' })).to.equal(0);
    }
    expect(one.cache.statistics.total('hits') + other.cache.statistics.total('hits')).to.be.above(1);
  });

  it('is off by default: a hit loads nothing', async () => {
    const origin: Origin = { version: 1, error: undefined, held: undefined, loads: 0 };
    const { cache, version } = lendProcess(place().open(), uniqueName(), origin, { ttlMs: 60_000 });
    await version();
    await cache.settled();
    for (let i = 0; i < 50; i++) await version();
    await cache.settled();
    expect(origin.loads).to.equal(1);
  });
});
