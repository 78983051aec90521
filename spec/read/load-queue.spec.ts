import { expect } from 'chai';
import fc from 'fast-check';
import {
  type CacheOptions,
  GenerationalCache,
  integer,
  memoryStore,
  type Store,
  StoreUnavailableError,
} from '../../lib/index.js';
import { withDeadline } from '../../lib/async/deadline.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { nonce } from '../../lib/model/generation.js';
import { bypassStore } from '../../lib/testing/index.js';
import { type Deferred, deferred, eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { rejection } from '../support/rejection.js';
import { privateRedis, uniqueName } from '../support/redis.js';
import { lendCache } from '../support/cache.js';

const turn = () => new Promise(setImmediate);

interface Limits {
  readonly loadBatchMax?: number;
  readonly loadsMax?: number;
  readonly loadSoftTimeoutMs?: number;
  readonly loadHardTimeoutMs?: number;
}

type Options = Partial<CacheOptions<{ trx: string | undefined }, string>> & { entry?: Limits };

/** A cache whose loads read the present version when they are called, and end when the spec says. */
function lendHeld({ entry = {}, ...options }: Options = {}) {
  const name = options.name ?? uniqueName();
  const cache = new GenerationalCache({
    source: { context: (trx?: string) => ({ trx }) },
    ...options,
    name,
    store: options.store ?? bypassStore(),
  });
  let isOver = false;
  lend({
    what: 'the cache',
    close() {
      isOver = true;
      for (const { end } of loads) end.resolve();
      return cache.close();
    },
  });
  const state = { version: 1 };
  const loads: { readonly ids: number[]; readonly signal: AbortSignal; readonly end: Deferred<void> }[] = [];
  let running = 0;
  let runningMax = 0;
  const items = cache.namespace('item', integer());
  const declare = (entryName: string, limits: Limits = {}) =>
    items.one(entryName, {
      ...limits,
      async load(ids, { signal }) {
        const { version } = state;
        const load = { ids: ids.map(({ item }) => Number(item)), signal, end: deferred() };
        loads.push(load);
        if (isOver) load.end.resolve();
        runningMax = Math.max(runningMax, ++running);
        await load.end.promise.finally(() => running--);
        return ids.map(({ item }) => ({ item, tags: [version] }));
      },
      by: ({ item }) => ({ item }),
      value: ({ tags }) => ({ tags }),
    });
  const value = declare('value', entry);
  /** Reads one item in a turn of its own. Resolves to the version it got. */
  const read = async (item = 1) => {
    const reading = value.fetch({ item }).then((got) => got!.tags[0]!);
    reading.catch(() => {});
    await turn();
    await turn(); // with an open breaker, a read takes one turn more
    return { reading };
  };
  return {
    ...{ name, cache, items, value, declare, state, loads, read },
    /** The ids of each call of the loader. */
    ids: () => loads.map((load) => load.ids),
    runningMax: () => runningMax,
    endAll: async () => {
      for (let ended = 0; ended < loads.length; await turn(), await turn()) loads[ended++]!.end.resolve();
    },
  };
}

/** A store in memory that fails at will. */
function failing() {
  const memory = memoryStore();
  const state = { isDown: false };
  const store: Store = {
    ...memory,
    read: (keys, deadline) =>
      state.isDown ? Promise.reject(new StoreUnavailableError('down', false)) : memory.read(keys, deadline),
  };
  return { store, state };
}

describe('readers without a vector', () => {
  const reasons: Record<string, () => Options | Promise<Options>> = {
    'on a bypass store': () => ({ store: bypassStore() }),
    'while the store is down': () => {
      const { store, state } = failing();
      state.isDown = true;
      return { store };
    },
    'with a bound that no relay keeps': () => ({ store: memoryStore(), maxStalenessMs: 1_000 }),
    'under the quarantine of a strict commit': async () => {
      const store = memoryStore();
      const name = uniqueName();
      const key = generationKey(keyPrefix(name), 'item=1');
      await withDeadline('quarantine', 1_000, (deadline) => store.quarantine([key], nonce(), 60_000, deadline));
      return { store, name };
    },
  };
  for (const [reason, options] of Object.entries(reasons)) {
    it(`cause three loads, however many come during the first, ${reason}, and none gets what is older than itself`, async () => {
      const { read, state, loads, ids, endAll, cache } = lendHeld(await options());
      const readers: { reading: Promise<number>; begunAt: number }[] = [];
      for (let i = 0; i < 100; i++) {
        const begunAt = state.version;
        readers.push({ ...(await read()), begunAt });
        state.version++;
      }
      expect(ids()).to.deep.equal([[1], [1]]);
      loads[0]!.end.resolve();
      await eventually(() => expect(ids()).to.deep.equal([[1], [1], [1]]));
      await endAll();
      for (const { reading, begunAt } of readers) expect(await reading).to.be.at.least(begunAt);
      expect(await readers[0]!.reading).to.equal(1);
      expect(await readers[99]!.reading).to.equal(101);
      expect(cache.statistics.total('queries_run')).to.equal(3);
      expect(cache.statistics.total('queries_avoided')).to.equal(97);
    });
  }

  it('get values of their own', async () => {
    const { read, value, endAll } = lendHeld();
    await read();
    await read();
    const readings = [value.fetch({ item: 1 }), turn().then(() => value.fetch({ item: 1 }))];
    await turn();
    await turn();
    await endAll();
    const [one, other] = await Promise.all(readings);
    one!.tags.push(7);
    expect(other).to.deep.equal({ tags: [1] });
  });

  it('wait for the running loads of their own entries alone', async () => {
    const { value, read, ids, loads } = lendHeld();
    await read(1);
    await read(1);
    const both = value.fetchMany([{ item: 1 }, { item: 2 }]);
    await turn();
    expect(ids()).to.deep.equal([[1], [1], [2]]);
    loads[0]!.end.resolve();
    await eventually(() => expect(ids()).to.deep.equal([[1], [1], [2], [1]]));
    for (const { end } of loads) end.resolve();
    expect(await both).to.have.length(2);
  });

  it('do not wait for a load that takes longer than its soft timeout', async () => {
    const { read, ids, loads } = lendHeld({ entry: { loadSoftTimeoutMs: 50 } });
    const hung = [await read(), await read()];
    const later = await read();
    expect(ids()).to.have.length(2);
    await eventually(() => expect(ids()).to.have.length(3)); // the first two still run
    loads[2]!.end.resolve();
    expect(await later.reading).to.equal(1);
    for (const [i, { reading }] of hung.entries()) {
      loads[i]!.end.resolve();
      expect(await reading).to.equal(1);
    }
  });

  it('of a real outage cause a few loads, and not one each', async () => {
    const server = await privateRedis();
    const { cache, value, rows, loads } = lendCache({ url: server.url, readDeadlineMs: 20, rows: new Map([[1, 0]]) });
    await value.fetch({ item: 1 });
    await cache.settled();
    await server.kill('SIGKILL');
    await eventually(() => expect(cache.state.connection).to.include({ isUp: false }));
    loads.length = 0;
    const slow = cache.namespace('slow', integer()).one('value', {
      async load(ids) {
        const version = rows.get(1);
        loads.push([]);
        await new Promise((resolve) => setTimeout(resolve, 300));
        return ids.map(({ slow }) => ({ slow, version }));
      },
      by: ({ slow: id }) => ({ slow: id }),
    });
    const readings: Promise<void>[] = [];
    const startedAtMs = performance.now();
    for (let i = 0; i < 100; i++) {
      rows.set(1, i);
      readings.push(slow.fetch({ slow: 1 }).then((row) => void expect(row!.version).to.be.at.least(i)));
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    const tookMs = performance.now() - startedAtMs;
    await Promise.all(readings);
    // Two at once, for as long as readers come, and those that gathered last.
    expect(loads.length).to.be.within(2, 2 * Math.ceil(tookMs / 300) + 2);
  });
});

describe('a reader with a vector of its own', () => {
  it('does not wait for one running load of its entry, and waits for two', async () => {
    const { items, read, ids, loads, endAll } = lendHeld({ store: memoryStore() });
    await read();
    for (let i = 0; i < 3; i++) {
      await items.bump({ item: 1 });
      await read();
    }
    expect(ids()).to.deep.equal([[1], [1]]);
    loads[0]!.end.resolve();
    await eventually(() => expect(ids()).to.have.length(3)); // for the last two readers
    await endAll();
  });

  it('joins a reader that gathers without one, and the load fills under its vector', async () => {
    const { store, state: outage } = failing();
    const { read, state, ids, loads, value, cache } = lendHeld({ store, breakerFailures: 0 });
    outage.isDown = true;
    await read(); // loads
    await read(); // loads
    const gathered = await read();
    outage.isDown = false;
    state.version = 2;
    const missed = await read();
    expect(ids()).to.deep.equal([[1], [1]]);
    loads[0]!.end.resolve();
    await eventually(() => expect(ids()).to.have.length(3));
    loads[2]!.end.resolve();
    expect(await Promise.all([gathered.reading, missed.reading])).to.deep.equal([2, 2]);
    loads[1]!.end.resolve();
    await cache.settled();
    expect(await value.lookup({ item: 1 })).to.deep.include({ outcome: 'hit', value: { tags: [2] } });
    expect(ids()).to.have.length(3);
  });

  it('never makes a load fill that was called before its lookup', async () => {
    const { store, state: outage } = failing();
    const { read, loads, value, cache } = lendHeld({ store, breakerFailures: 0 });
    outage.isDown = true;
    const bypassed = await read();
    outage.isDown = false;
    expect(await value.lookup({ item: 1 })).to.include({ outcome: 'miss' });
    loads[0]!.end.resolve();
    expect(await bypassed.reading).to.equal(1);
    await cache.settled();
    expect(await value.lookup({ item: 1 })).to.include({ outcome: 'miss' });
  });
});

describe('any history of reads, loads, outages and changes', () => {
  const step = fc.constantFrom('read', 'read', 'read', 'change', 'end', 'fail', 'up', 'down');

  it('gives no reader what is older than the last change before it', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        const { store, state: outage } = failing();
        const held = lendHeld({ store, breakerFailures: 0, loadSoftTimeoutMs: 3_600_000 });
        const { state, loads, items, read } = held;
        let ended = 0;
        const readers: { reading: Promise<number>; begunAt: number }[] = [];
        for (const next of steps) {
          if (next === 'read') {
            const begunAt = state.version;
            readers.push({ ...(await read()), begunAt });
          } else if (next === 'change') {
            state.version++;
            await items.bump({ item: 1 });
          } else if (next === 'end' && ended < loads.length) loads[ended++]!.end.resolve();
          else if (next === 'fail' && ended < loads.length) loads[ended++]!.end.reject(new Error('as the spec says'));
          else outage.isDown = next === 'down';
          await turn();
        }
        for (; ended < loads.length; await turn(), await turn()) loads[ended++]!.end.resolve();
        for (const { reading, begunAt } of readers) {
          const got = await reading.catch((error: Error) => error.message);
          if (got !== 'as the spec says') expect(got).to.be.at.least(begunAt);
        }
        await held.cache.close();
      }),
      { numRuns: 300 },
    );
  });
});

describe('the cap on loads', () => {
  it('holds for the cache, and loads what waited in one call', async () => {
    const { read, ids, loads, endAll, runningMax, cache } = lendHeld({ loadsMax: 2 });
    const readers = [];
    for (let item = 1; item <= 5; item++) readers.push(await read(item));
    expect(ids()).to.deep.equal([[1], [2]]);
    loads[0]!.end.resolve();
    await eventually(() => expect(ids()).to.deep.equal([[1], [2], [3, 4, 5]]));
    await endAll();
    for (const { reading } of readers) expect(await reading).to.equal(1);
    expect(runningMax()).to.equal(2);
    expect(cache.statistics.total('queries_run')).to.equal(3);
  });

  it('takes at most `loadBatchMax` of what waited in one call', async () => {
    const { read, ids, endAll } = lendHeld({ loadsMax: 1, entry: { loadBatchMax: 2 } });
    for (let item = 1; item <= 6; item++) await read(item);
    await endAll();
    expect(ids()).to.deep.equal([[1], [2, 3], [4, 5], [6]]);
  });

  it('holds for each entry with a cap of its own, and leaves the others their room', async () => {
    const { read, declare, ids } = lendHeld({ loadsMax: 3, entry: { loadsMax: 1 } });
    const other = declare('other');
    await read(1);
    await read(2);
    other.fetch({ item: 7 }).catch(() => {});
    await turn();
    expect(ids()).to.deep.equal([[1], [7]]);
  });

  it('is four fifths for each entry by default, so that a slow one leaves room to the others', async () => {
    const { value, declare, ids } = lendHeld({ loadsMax: 10, entry: { loadBatchMax: 1 } });
    const other = declare('other');
    for (let item = 1; item <= 12; item++) {
      value.fetch({ item }).catch(() => {});
      await turn();
    }
    expect(ids()).to.have.length(8);
    other.fetch({ item: 99 }).catch(() => {});
    await turn();
    expect(ids().at(-1)).to.deep.equal([99]);
  });

  it('lets a loader fetch another entry', async () => {
    const cache = new GenerationalCache({ name: uniqueName(), store: bypassStore() });
    lend({ what: 'the cache', close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const inner = items.value('inner', { load: async ({ item }) => (await turn(), `inner ${item}`) });
    const outer = items.value('outer', { load: async ({ item }) => `outer of ${await inner.fetch({ item })}` });
    const fetched = await Promise.all(Array.from({ length: 40 }, (_, item) => outer.fetch({ item })));
    expect(fetched).to.deep.equal(Array.from({ length: 40 }, (_, item) => `outer of inner ${item}`));
  });

  it('lets entries take turns', async () => {
    const { read, declare, ids, loads } = lendHeld({ loadsMax: 1, entry: { loadBatchMax: 1 } });
    const other = declare('other');
    for (let item = 1; item <= 4; item++) await read(item);
    other.fetch({ item: 7 }).catch(() => {});
    await turn();
    loads[0]!.end.resolve();
    await eventually(() => expect(ids()).to.have.length(2));
    loads[1]!.end.resolve();
    await eventually(() => expect(ids()).to.have.length(3));
    expect(ids().flat()).to.include(7); // before items 3 and 4
  });

  it('counts a load until its loader has settled, also after its hard timeout', async () => {
    const { read, ids, loads, cache } = lendHeld({ loadsMax: 1, entry: { loadHardTimeoutMs: 20 } });
    const late = await read(1);
    expect(await rejection(late.reading)).to.have.property('code', 'LOAD_TIMEOUT');
    await read(2);
    await turn();
    expect(ids()).to.deep.equal([[1]]);
    expect(cache.state.loads).to.deep.equal({ running: 1, overdue: 1, waiting: 1, elsewhere: 0 });
    loads[0]!.end.resolve();
    await eventually(() => expect(ids()).to.deep.equal([[1], [2]]));
    expect(cache.state.loads).to.deep.equal({ running: 1, overdue: 0, waiting: 0, elsewhere: 0 });
  });

  it('holds for the calls that follow a failed one', async () => {
    const { value, read, loads, ids, runningMax, endAll } = lendHeld({ loadsMax: 1 });
    await read(9);
    const calls = [1, 2, 3, 4].map((item) => value.fetch({ item }));
    await turn();
    loads[0]!.end.resolve();
    await eventually(() => expect(ids()).to.deep.equal([[9], [1, 2, 3, 4]]));
    loads[1]!.end.reject(new Error('as the spec says'));
    await eventually(() => expect(ids()).to.have.length(3)); // one half
    await turn();
    expect(ids()).to.have.length(3);
    await endAll();
    expect(await Promise.all(calls)).to.have.length(4);
    expect(ids().slice(2)).to.deep.equal([
      [1, 2],
      [3, 4],
    ]);
    expect(runningMax()).to.equal(1);
  });

  it('does not hold for a read in the caller’s transaction, which has its connection', async () => {
    const { value, read, ids, endAll } = lendHeld({ loadsMax: 1 });
    await read(1);
    const within = value.fetch({ item: 1 }, { trx: 'mine' });
    await turn();
    expect(ids()).to.deep.equal([[1], [1]]);
    await endAll();
    expect(await within).to.deep.equal({ tags: [1] });
  });

  it('leaves no room to comparisons of `verifyRate` that readers need', async () => {
    const { read, value, ids, loads, cache } = lendHeld({ store: memoryStore(), verifyRate: 1, loadsMax: 1 });
    const first = await read(1);
    loads[0]!.end.resolve();
    await first.reading;
    await eventually(async () => expect(await value.lookup({ item: 1 })).to.include({ outcome: 'hit' }));
    const second = await read(2);
    await value.fetch({ item: 1 }); // a hit, while the only place is taken
    loads[1]!.end.resolve();
    await second.reading;
    await cache.settled();
    expect(ids()).to.deep.equal([[1], [2]]);
    await value.fetch({ item: 1 }); // a hit, with room
    await eventually(() => expect(ids()).to.deep.equal([[1], [2], [1]]));
    const third = await read(3);
    expect(ids()).to.have.length(3); // the comparison has the place
    loads[2]!.end.resolve();
    await eventually(() => expect(ids()).to.have.length(4));
    loads[3]!.end.resolve();
    await third.reading;
    await cache.settled();
    expect(cache.statistics.total('verified')).to.equal(1);
  });

  it('gives a failed load’s further calls and queued entries their turns', async () => {
    const { value, read, declare, ids, loads } = lendHeld({ loadsMax: 1 });
    const other = declare('other');
    await read(9);
    for (const item of [1, 2, 3, 4]) value.fetch({ item }).catch(() => {});
    await turn();
    loads[0]!.end.resolve();
    await eventually(() => expect(ids()).to.have.length(2));
    other.fetch({ item: 7 }).catch(() => {});
    await turn();
    loads[1]!.end.reject(new Error('as the spec says')); // two halves follow
    for (let load = 2; load <= 3; load++) {
      await eventually(() => expect(ids()).to.have.length(load + 1));
      loads[load]!.end.resolve();
    }
    await eventually(() => expect(ids()).to.have.length(5));
    expect(ids().slice(2, 4)).to.deep.include([7]); // between the halves, at the latest
  });

  describe('with a full queue', () => {
    it('refuses further entries at once, and says what to do', async () => {
      const { name, read, ids, endAll } = lendHeld({ loadsMax: 1, loadQueueMax: 2 });
      const accepted = [await read(1), await read(2), await read(3)];
      const refused = await rejection((await read(4)).reading);
      expect(refused).to.include({ name: 'SourceOverloadError', code: 'SOURCE_OVERLOAD' });
      expect(refused.message).to.equal(
        `A load of entry "value" can't begin, and 2 entries wait already (loadQueueMax), since 1 loads of cache "${name}" ` +
          'run at once (loadsMax is 1, that of the entry 1). Look for slow queries; raise loadsMax if the source and its ' +
          'pool have room, or send less load.',
      );
      const joining = await read(3); // costs the source nothing
      await endAll();
      for (const { reading } of [...accepted, joining]) expect(await reading).to.equal(1);
      expect(ids()).to.deep.equal([[1], [2, 3]]);
    });

    it('refuses an entry that has waited for too long, with all that joined it', async () => {
      const { read, ids, loads, cache } = lendHeld({ loadsMax: 1, loadQueueTimeoutMs: 50 });
      const running = await read(1);
      const waiting = [await read(2), await read(2)];
      for (const { reading } of waiting) {
        const error = await rejection(reading);
        expect(error).to.have.property('code', 'SOURCE_OVERLOAD');
        expect(error.message).to.match(
          /^A load of entry "value" did not begin within 50 ms \(loadQueueTimeoutMs\), since 1/,
        );
      }
      loads[0]!.end.resolve();
      expect(await running.reading).to.equal(1);
      await cache.settled();
      expect(ids()).to.deep.equal([[1]]);
    });

    it('has room for an entry that waits for its own loads', async () => {
      const { read, ids, loads, endAll } = lendHeld({ loadsMax: 3, loadQueueMax: 0 });
      const readers = [await read(1), await read(1), await read(1)];
      expect(ids()).to.deep.equal([[1], [1]]);
      loads[0]!.end.resolve();
      await eventually(() => expect(ids()).to.have.length(3));
      await endAll();
      for (const { reading } of readers) expect(await reading).to.equal(1);
    });

    it('gives an entry whose loads are slower than the queue’s time its next load, and no error', async () => {
      const limits = { loadQueueTimeoutMs: 50, loadSoftTimeoutMs: 60_000 };
      const { read, ids, loads } = lendHeld(limits);
      await read();
      await read();
      const gathered = await read();
      await eventually(() => expect(ids()).to.have.length(3));
      loads[2]!.end.resolve();
      expect(await gathered.reading).to.equal(1);
    });

    it('refuses in a later turn, so that a caller that tries again at once lets loads end', async () => {
      const { value, read, loads } = lendHeld({ loadsMax: 1, loadQueueMax: 0 });
      await read(1);
      const ended = new AbortController();
      void loads[0]!.end.promise.then(() => ended.abort());
      setImmediate(() => setImmediate(() => loads[0]!.end.resolve()));
      let tries = 0;
      for (; !ended.signal.aborted && tries < 10_000; tries++) {
        await Promise.race([value.fetch({ item: 2 }).catch(() => {}), loads[0]!.end.promise]);
      }
      expect(tries).to.be.below(100);
    });

    it('accepts entries again when there is room', async () => {
      const { read, ids, loads } = lendHeld({ loadsMax: 1, loadQueueMax: 0 });
      await read(1);
      expect(await rejection((await read(2)).reading)).to.have.property('code', 'SOURCE_OVERLOAD');
      loads[0]!.end.resolve();
      await turn();
      await turn();
      await read(3);
      expect(ids()).to.deep.equal([[1], [3]]);
    });
  });

  it('of a call of many ids is used for one load at a time', async () => {
    const { value, ids, endAll, runningMax } = lendHeld({ entry: { loadBatchMax: 2 } });
    const many = value.fetchMany([1, 2, 3, 4, 5].map((item) => ({ item })));
    await turn();
    await endAll();
    expect(await many).to.have.length(5);
    expect(ids()).to.deep.equal([[1, 2], [3, 4], [5]]);
    expect(runningMax()).to.equal(1);
  });
});

describe('a call of many values', () => {
  it('has a few of them queued at once, and so waits for no room for longer than a load', async () => {
    const cache = new GenerationalCache({
      ...{ name: uniqueName(), store: bypassStore(), loadsMax: 5, loadQueueMax: 10, loadQueueTimeoutMs: 200 },
    });
    lend({ what: 'the cache', close: () => cache.close() });
    const value = cache.namespace('item', integer()).value('value', {
      load: async ({ item }) => {
        await new Promise((resolve) => setTimeout(resolve, 10));
        return item;
      },
    });
    const items = Array.from({ length: 200 }, (_, item) => ({ item })); // some 500 ms of loads
    expect(await value.fetchMany(items)).to.have.length(200);
  });

  it('is loaded no further when it has failed', async () => {
    const cache = new GenerationalCache({ name: uniqueName(), store: memoryStore() });
    lend({ what: 'the cache', close: () => cache.close() });
    const calls: unknown[] = [];
    const failing = cache.namespace('item', integer()).value('value', {
      loadsMax: 2,
      load: async ({ item }) => {
        calls.push(item);
        await turn();
        throw new Error(`no ${item}`);
      },
    });
    await rejection(failing.fetchMany(Array.from({ length: 50 }, (_, item) => ({ item }))));
    await cache.settled();
    expect(calls.length).to.be.at.most(4);
    expect(cache.statistics.total('queries_avoided')).to.equal(0);
  });
});

describe('a value that can’t be stored', () => {
  it('is not shared with a reader that comes after its load, while other fills are under way', async () => {
    const memory = memoryStore();
    const gate = deferred();
    const store: Store = { ...memory, fill: async (...args) => (await gate.promise, memory.fill(...args)) };
    const cache = new GenerationalCache({ name: uniqueName(), store, maxValueBytes: 100 });
    lend({ what: 'the cache', close: () => cache.close() });
    const value = cache.namespace('item', integer()).one('value', {
      load: async (ids) => ids.map(({ item }) => ({ item, tags: ['x'.repeat(Number(item) === 0 ? 1_000 : 1)] })),
      by: ({ item }) => ({ item }),
    });
    const [one] = await value.fetchMany([{ item: 0 }, { item: 1 }]);
    const other = await value.fetch({ item: 0 });
    one!.tags.push('mine');
    expect(other!.tags).to.have.length(1);
    gate.resolve();
  });
});

describe('a cache that is closed', () => {
  it('rejects what waits for a load, and tells the loads that run to stop', async () => {
    const { cache, read, loads } = lendHeld({ loadsMax: 1, closeDeadlineMs: 20 });
    await read(1);
    const waiting = rejection((await read(2)).reading);
    await cache.close();
    expect(await waiting).to.have.property('code', 'CLOSED');
    expect(loads[0]!.signal.reason).to.have.property('code', 'CLOSED');
    loads[0]!.end.resolve();
  });
});

describe('callers with strange attributes', () => {
  it('get their values, and hang nothing', async () => {
    const { value, endAll } = lendHeld({ store: memoryStore() });
    const circular: Record<string, unknown> = {};
    circular['itself'] = circular;
    const reads = [{ tenant: 10n }, circular, { tenant: 'a' }].map((attributes) =>
      value.fetch({ item: 1 }, { attributes: attributes as never }),
    );
    await turn();
    await endAll();
    expect(await Promise.all(reads)).to.deep.equal([{ tags: [1] }, { tags: [1] }, { tags: [1] }]);
  });
});

describe('a reader with the vector of a load past its soft timeout', () => {
  it('does not wait for it', async () => {
    const { read, ids, loads } = lendHeld({ store: memoryStore(), entry: { loadSoftTimeoutMs: 30 } });
    await read();
    await new Promise((resolve) => setTimeout(resolve, 60));
    const later = await read();
    await eventually(() => expect(ids()).to.have.length(2));
    loads[1]!.end.resolve();
    expect(await later.reading).to.equal(1);
  });
});

describe('a load that takes longer than its hard timeout', () => {
  const entry = { loadHardTimeoutMs: 30 };

  it('rejects its callers, and those that joined it, and aborts its signal', async () => {
    const { read, loads } = lendHeld({ store: memoryStore(), entry });
    const [first, joined] = [await read(), await read()];
    for (const { reading } of [first, joined]) {
      const error = await rejection(reading);
      expect(error).to.deep.include({ name: 'LoadTimeoutError', code: 'LOAD_TIMEOUT', limitMs: 30 });
      expect(error.message).to.equal(
        'A load of entry "value" took longer than 30 ms (loadHardTimeoutMs), and was told to stop. Look at its query, or ' +
          'raise the timeout.',
      );
      expect(loads[0]!.signal.reason).to.equal(error);
    }
    expect(loads).to.have.length(1); // it is not tried again in parts
  });

  it('fills under the vector captured before it, when its values come at last', async () => {
    const { read, loads, value, cache, ids } = lendHeld({ store: memoryStore(), entry });
    await rejection((await read()).reading);
    loads[0]!.end.resolve();
    await cache.settled();
    expect(await value.fetch({ item: 1 })).to.deep.equal({ tags: [1] });
    expect(ids()).to.have.length(1);
  });

  it('fills nothing after a bump', async () => {
    const { read, loads, value, cache, items } = lendHeld({ store: memoryStore(), entry });
    await rejection((await read()).reading);
    await items.bump({ item: 1 });
    loads[0]!.end.resolve();
    await cache.settled();
    expect(await value.lookup({ item: 1 })).to.include({ outcome: 'miss' });
    expect(cache.statistics.total('refused_fills', { reason: 'moved' })).to.equal(1);
  });

  it('is joined by no later reader', async () => {
    const { read, loads, ids } = lendHeld({ store: memoryStore(), entry: { ...entry, loadSoftTimeoutMs: 10 } });
    await rejection((await read()).reading);
    const later = await read();
    await eventually(() => expect(ids()).to.have.length(2));
    loads[1]!.end.resolve();
    expect(await later.reading).to.equal(1);
  });

  it('may reject later without an effect', async () => {
    const { read, loads, cache } = lendHeld({ entry });
    await rejection((await read()).reading);
    loads[0]!.end.reject(new Error('cancelled'));
    await cache.settled();
    expect(cache.statistics.total('load_errors')).to.equal(1);
  });

  it('within a caller’s transaction rejects that call', async () => {
    const { value } = lendHeld({ entry });
    expect(await rejection(value.fetch({ item: 1 }, { trx: 'mine' }))).to.have.property('code', 'LOAD_TIMEOUT');
  });
});

it('a loader without a hard timeout gets a signal that is not aborted', async () => {
  const { read, loads, endAll } = lendHeld();
  const { reading } = await read();
  expect(loads[0]!.signal).to.be.instanceOf(AbortSignal).and.to.include({ aborted: false });
  await endAll();
  await reading;
});
