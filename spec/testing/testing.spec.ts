import { expect } from 'chai';
import { GenerationalCache, integer, memoryStore, type Store } from '../../lib/index.js';
import { bypassStore, manualClock, observe } from '../../lib/testing/index.js';
import { rejection, thrown } from '../support/rejection.js';
import { deferred } from '../support/deferred.js';

/** A cache whose values count the calls of its loader. */
function counting(store: Store, clock = manualClock()) {
  const cache = new GenerationalCache({ name: 'testing', store, clock, ttlMs: 60_000, ttlJitter: 0 });
  const items = cache.namespace('item', integer());
  const loads: number[][] = [];
  const held = { until: Promise.resolve() };
  const value = items.one('value', {
    load: async (ids) => {
      loads.push(ids.map((id) => Number(id.item)));
      const count = loads.length;
      await held.until;
      return ids.map((id) => ({ item: id.item, count }));
    },
    by: (row) => ({ item: row.item }),
    value: (row) => row.count,
  });
  return { cache, items, value, loads, held };
}

describe('bypassStore', () => {
  it('sends every read to the loader, fills nothing, and counts bypasses', async () => {
    const { cache, value, loads } = counting(bypassStore());
    expect(await value.fetch({ item: 1 })).to.equal(1);
    await cache.settled();
    expect(await value.fetch({ item: 1 })).to.equal(2);
    expect(loads).to.deep.equal([[1], [1]]);
    expect(cache.statistics.total('bypasses')).to.equal(2);
    expect(cache.statistics.total('fills') + cache.statistics.total('refused_fills')).to.equal(0);
  });

  it('gives the reads of one turn one call of the loader', async () => {
    const { value, loads } = counting(bypassStore());
    expect(await Promise.all([value.fetch({ item: 1 }), value.fetchMany([{ item: 2 }, { item: 1 }])])).to.deep.equal([
      1,
      [1, 1],
    ]);
    expect(loads).to.deep.equal([[1, 2]]);
  });

  it('makes a lookup a bypass with the reason bypass_store', async () => {
    const { value } = counting(bypassStore());
    expect(await value.lookup({ item: 1 })).to.deep.equal({ outcome: 'bypass', reason: 'bypass_store' });
  });

  it('lets bumps and deletes succeed without effect', async () => {
    const { cache, items, value } = counting(bypassStore());
    const seen = observe(cache);
    await items.bump({ item: 1 });
    await items.bumpMany([{ item: 1 }, { item: 2 }]);
    await cache.bump();
    expect(await value.delete({ item: 1 })).to.equal(false);
    expect(seen.events('bump').map(({ bumps, moved }) => [bumps, moved])).to.deep.equal([
      [1, 0],
      [2, 0],
      [1, 0],
    ]);
    await cache.close();
  });

  it('holds nothing by any call of the port', async () => {
    const store = bypassStore();
    const never = undefined as never;
    expect(await store.read(['a', 'b'] as never, never)).to.deep.equal([null, null]);
    expect(await store.bump(['a'] as never, 'nonce', 1, never)).to.deep.equal(['missing']);
    expect(await store.mint(['a'] as never, '0.x' as never, 1, never)).to.deep.equal(['0.x']);
    const entries = [{}] as never;
    expect((await store.fill({ guards: [], entries, asOfMs: 0, lease: undefined }, never)).replies).to.deep.equal([
      'moved',
    ]);
    const claiming = { guards: [], entries, token: 'token', ttlMs: 1 };
    expect((await store.claim(claiming, never)).claims).to.deep.equal(['leaseless']);
    expect(await store.delete(['a'] as never, never)).to.equal(0);
  });
});

describe('manualClock', () => {
  it('stands still until it is advanced', () => {
    const clock = manualClock();
    const before = clock.nowMs();
    clock.advance(0);
    clock.advance(1.5);
    clock.advance(10);
    expect(clock.nowMs() - before).to.equal(11.5);
  });

  it('rejects an advance by a negative, infinite or invalid time', () => {
    for (const ms of [-1, NaN, Infinity, '5' as never]) {
      expect(thrown(() => manualClock().advance(ms))).to.include({
        name: 'ConfigurationError',
        message:
          `ms must be a number from 0, but got ${typeof ms === 'string' ? `'${String(ms)}'` : String(ms)} (manualClock). ` +
          'Make another clock to start over.',
      });
    }
  });

  it('ends the TTL of an entry in the in-memory store of a cache', async () => {
    const clock = manualClock();
    const { cache, value } = counting(memoryStore({ clock }), clock);
    expect(await value.fetch({ item: 1 })).to.equal(1);
    await cache.settled();
    clock.advance(59_999);
    expect(await value.fetch({ item: 1 })).to.equal(1);
    clock.advance(2);
    expect(await value.fetch({ item: 1 })).to.equal(2);
  });

  it('makes a load that lasts as long as the TTL fill nothing', async () => {
    const clock = manualClock();
    const { cache, value, loads, held } = counting(memoryStore({ clock }), clock);
    const seen = observe(cache);
    const gate = deferred();
    held.until = gate.promise;
    const reading = value.fetch({ item: 1 });
    const loaded = seen.nextLoad();
    while (loads.length === 0) await new Promise(setImmediate);
    clock.advance(60_000);
    gate.resolve();
    expect(await reading).to.equal(1);
    await loaded;
    await cache.settled();
    expect(seen.events('fill').map(({ fills, refusalReasons }) => ({ fills, refusalReasons }))).to.deep.equal([
      { fills: 0, refusalReasons: { expired: 1 } },
    ]);
  });
});

describe('observe', () => {
  it('counts the loads and bumps after its call, not those before', async () => {
    const { cache, items, value } = counting(memoryStore());
    await value.fetch({ item: 1 });
    await cache.settled();
    const seen = observe(cache);
    await value.fetch({ item: 1 });
    expect([seen.loads, seen.bumps]).to.deep.equal([0, 0]);
    await items.bump({ item: 1 });
    await value.fetch({ item: 1 });
    expect([seen.loads, seen.bumps]).to.deep.equal([1, 1]);
  });

  it('resolves with the next load and the next bump', async () => {
    const { cache, items, value } = counting(memoryStore());
    const seen = observe(cache);
    const [load, bump] = [seen.nextLoad(), seen.nextBump()];
    await value.fetchMany([{ item: 1 }, { item: 2 }]);
    await items.bump({ item: 2 }, { cause: 'item renamed' });
    expect(await load).to.include({ entry: 'value', ids: 2, rows: 2, purpose: 'read' });
    expect(await bump).to.deep.include({ namespace: 'item', cause: 'item renamed', paths: ['item=2'], moved: 1 });
  });

  it('keeps the events of each name, oldest first, and returns copies', async () => {
    const { cache, value } = counting(memoryStore());
    const seen = observe(cache);
    await value.fetch({ item: 1 });
    await cache.settled();
    await value.fetch({ item: 1 });
    expect(seen.events('read').map(({ hits, misses }) => [hits, misses])).to.deep.equal([
      [0, 1],
      [1, 0],
    ]);
    expect(seen.events('staleEntry')).to.deep.equal([]);
    seen.events('read').length = 0;
    expect(seen.events('read')).to.have.length(2);
  });

  it('hears nothing after stop(), which rejects pending waits', async () => {
    const { cache, items } = counting(memoryStore());
    const seen = observe(cache);
    const waiting = seen.nextBump();
    seen.stop();
    seen.stop();
    await items.bump({ item: 1 });
    expect(seen.bumps).to.equal(0);
    const message =
      'The observation was stopped before an event "bump" came. Stop it after the last event that the test awaits.';
    expect(await rejection(waiting)).to.include({ code: 'CLOSED', message });
    expect(await rejection(seen.nextBump())).to.include({ code: 'CLOSED', message });
  });
});
