import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CacheOptions, GenerationalCache, integer, memoryStore, type ReadEvent, text } from '../../lib/index.js';
import { manualClock } from '../../lib/testing/index.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { type Deferred, deferred, eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { uniqueName } from '../support/redis.js';
import { describeOnEachStore } from '../support/stores.js';

const TTL_MS = 60;
/** A call joins a load that is younger than the TTL: longer than a busy machine takes from the load to the call. */
const JOINABLE_TTL_MS = 1_000;

describeOnEachStore('a call of several entries, of which some may be served beyond their TTL', ({ place }) => {
  /** A cache in which item 1 and item 2 were stored as version 1 and are beyond their TTL; the source is at version 2. */
  async function lendStale(options: Partial<CacheOptions<Record<never, never>, never>> = {}) {
    const origin = {
      version: 1,
      error: undefined as Error | undefined,
      held: new Map<number, Deferred<void>>(),
      loads: [] as number[][],
    };
    const cache = new GenerationalCache({
      ...{ ttlMs: TTL_MS, ttlJitter: 0, readDeadlineMs: READ_DEADLINE_MS, fillDeadlineMs: READ_DEADLINE_MS },
      ...{ staleOnErrorMs: 60_000, loadSoftTimeoutMs: 200 },
      ...options,
      name: uniqueName(),
      store: place().open(),
    });
    lend({
      what: 'a cache',
      close() {
        for (const held of origin.held.values()) held.resolve();
        return cache.close();
      },
    });
    const value = cache.namespace('item', integer()).one('value', {
      async load(ids) {
        const { version } = origin;
        const items = ids.map(({ item }) => Number(item));
        origin.loads.push(items);
        for (const item of items) await origin.held.get(item)?.promise;
        if (origin.error) throw origin.error;
        return items.map((item) => ({ item, version }));
      },
      by: ({ item }) => ({ item }),
      value: ({ version }) => ({ version }),
    });
    await value.fetchMany([{ item: 1 }, { item: 2 }]);
    await cache.settled();
    await sleep((options.ttlMs ?? TTL_MS) + 5);
    origin.version = 2;
    origin.loads.length = 0;
    const reads: ReadEvent[] = [];
    cache.on('read', (event) => reads.push(event));
    return { origin, cache, value, reads };
  }

  it('gets stale values for all of them if their load fails', async () => {
    const { origin, value } = await lendStale({ loadSoftTimeoutMs: 60_000 });
    origin.error = new Error('no route to host');
    expect(await value.fetchMany([{ item: 1 }, { item: 2 }])).to.deep.equal([{ version: 1 }, { version: 1 }]);
  });

  it('waits for the entry without a stale value, if the load of both takes longer than the soft timeout', async () => {
    const { origin, value } = await lendStale();
    origin.held.set(3, deferred());
    const many = value.fetchMany([{ item: 1 }, { item: 3 }]);
    await eventually(() => expect(origin.loads).to.deep.equal([[1, 3]]));
    await sleep(320);
    origin.held.get(3)!.resolve();
    const [one, three] = await many;
    expect(one).to.have.property('version').that.is.oneOf([1, 2]);
    expect(three).to.deep.equal({ version: 2 });
  });

  it('waits for the entry without a stale value, if that of the other came late from a load of its own', async () => {
    const { origin, value } = await lendStale({ ttlMs: JOINABLE_TTL_MS });
    origin.held.set(1, deferred());
    origin.held.set(3, deferred());
    const early = value.fetch({ item: 3 });
    await eventually(() => expect(origin.loads).to.deep.equal([[3]]));
    const many = value.fetchMany([{ item: 1 }, { item: 3 }]);
    await eventually(() => expect(origin.loads).to.deep.equal([[3], [1]]));
    await sleep(320);
    origin.held.get(1)!.resolve();
    await sleep(20);
    origin.held.get(3)!.resolve();
    expect((await many)[1]).to.deep.equal({ version: 2 });
    expect(await early).to.deep.equal({ version: 2 });
  });

  it('counts an entry once that was slow first, and whose load then failed', async () => {
    const { origin, value, reads } = await lendStale({ ttlMs: JOINABLE_TTL_MS });
    origin.held.set(1, deferred());
    origin.held.set(3, deferred());
    const early = value.fetch({ item: 3 });
    await eventually(() => expect(origin.loads).to.deep.equal([[3]]));
    const many = value.fetchMany([{ item: 1 }, { item: 3 }]);
    await eventually(() => expect(origin.loads).to.deep.equal([[3], [1]]));
    await sleep(320);
    origin.error = new Error('no route to host');
    origin.held.get(1)!.resolve();
    await sleep(20);
    origin.error = undefined;
    origin.held.get(3)!.resolve();
    expect(await many).to.deep.equal([{ version: 1 }, { version: 2 }]);
    await early;
    const [read] = reads.filter(({ staleHits }) => staleHits > 0);
    expect(read).to.include({ hits: 0, absentHits: 0, staleHits: 1, misses: 1, bypasses: 0 });
  });
});

describe('a call of several entries of one scope', () => {
  it('counts the miss of one beside the stale hit of another', async () => {
    const clock = manualClock();
    const cache = new GenerationalCache({
      ...{ name: uniqueName(), store: memoryStore({ clock }), clock },
      ...{ ttlMs: 1_000, ttlJitter: 0, staleMs: 60_000 },
    });
    lend({ what: 'a cache', close: () => cache.close() });
    const setting = cache.namespace('item', integer()).value('setting', { key: { name: text() }, load: () => 1 });
    await setting.fetch({ item: 1, name: 'stale' });
    await cache.settled();
    clock.advance(1_500);
    const reads: ReadEvent[] = [];
    cache.on('read', (event) => reads.push(event));
    await setting.fetchMany([
      { item: 1, name: 'new' },
      { item: 1, name: 'stale' },
    ]);
    expect(reads[0]).to.include({ staleHits: 1, misses: 1 });
  });
});
