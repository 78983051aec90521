import { expect } from 'chai';
import { type Clock, GenerationalCache, integer, memoryStore, type Store } from '../../lib/index.js';
import { bypassStore, manualClock } from '../../lib/testing/index.js';
import { deferred, eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { rejection } from '../support/rejection.js';
import { uniqueName } from '../support/redis.js';

interface Row {
  readonly item: number;
  readonly value: string;
}

interface Wanted {
  readonly bad?: readonly number[];
  readonly store?: Store;
  readonly by?: (row: Row) => { item: number };
  readonly loadBatchMax?: number;
  readonly clock?: Clock;
}

describe('a load of several callers that fails', () => {
  /** A cache whose loader throws for the items of `bad`, as a query with one malformed parameter does. */
  function lendWith({ bad = [], store = memoryStore(), clock, ...options }: Wanted = {}) {
    const cache = new GenerationalCache({
      name: uniqueName(),
      store,
      source: { context: (trx?: string) => ({ trx }) },
      ...(clock && { clock }),
    });
    lend({ what: 'the cache', close: () => cache.close() });
    const loads: number[][] = [];
    let gate: Promise<void> = Promise.resolve();
    const items = cache.namespace('item', integer());
    const value = items.one('value', {
      async load(ids) {
        const asked = ids.map(({ item }) => Number(item));
        loads.push(asked);
        await gate;
        const wrong = asked.find((item) => bad.includes(item));
        if (wrong !== undefined) throw new Error(`no item ${wrong}`);
        return asked.map((item) => ({ item, value: `value ${item}` }));
      },
      by: ({ item }) => ({ item }),
      value: (row) => row.value,
      ...options,
    });
    const fetchAll = (...calls: number[][]) =>
      Promise.all(
        calls.map((call) =>
          value.fetchMany(call.map((item) => ({ item }))).then(
            (values) => values.join(', '),
            (error: Error) => error.message,
          ),
        ),
      );
    const hold = () => {
      const held = deferred();
      gate = held.promise;
      return held.resolve;
    };
    return { cache, value, loads, fetchAll, hold };
  }

  for (const [which, store] of Object.entries({ 'after misses': memoryStore, 'after bypasses': bypassStore })) {
    it(`rejects the caller of the bad id alone, ${which}`, async () => {
      const { loads, fetchAll } = lendWith({ bad: [2], store: store() });
      expect(await fetchAll([1], [2], [3])).to.deep.equal(['value 1', 'no item 2', 'value 3']);
      expect(loads[0]).to.deep.equal([1, 2, 3]);
    });
  }

  it('stores the values of the other callers', async () => {
    const { cache, loads, fetchAll } = lendWith({ bad: [2] });
    await fetchAll([1], [2], [3]);
    await cache.settled();
    expect(cache.statistics.total('fills')).to.equal(2);
    loads.length = 0;
    expect(await fetchAll([1, 3])).to.deep.equal(['value 1, value 3']);
    expect(loads).to.deep.equal([]);
  });

  it('passes the error of the loader on unwrapped', async () => {
    const { value } = lendWith({ bad: [2] });
    const [, error] = await Promise.all([value.fetch({ item: 1 }), rejection(value.fetch({ item: 2 }))]);
    expect(error).to.be.instanceOf(Error).with.property('message', 'no item 2');
    expect(error).to.not.have.property('cause');
  });

  it('rejects a caller of a good and a bad id, and not the caller that shares the good one', async () => {
    const { fetchAll } = lendWith({ bad: [2] });
    expect(await fetchAll([1, 2], [1])).to.deep.equal(['no item 2', 'value 1']);
    expect(await fetchAll([1, 2, 3], [2, 3], [3, 4], [4])).to.deep.equal([
      ...['no item 2', 'no item 2'],
      ...['value 3, value 4', 'value 4'],
    ]);
  });

  it('rejects no caller that joined the load for a good id', async () => {
    const { cache, value, loads, fetchAll, hold } = lendWith({ bad: [2] });
    await cache.settled();
    const release = hold();
    const first = fetchAll([1, 2]);
    await eventually(() => expect(loads).to.have.length(1));
    const later = fetchAll([1], [2]);
    await new Promise(setImmediate);
    await value.lookup({ item: 1 });
    expect(loads).to.have.length(1);
    release();
    expect(await first).to.deep.equal(['no item 2']);
    expect(await later).to.deep.equal(['value 1', 'no item 2']);
  });

  it('for a row of an id that only one caller asked for rejects that caller alone', async () => {
    const { fetchAll } = lendWith({ by: (row) => ({ item: row.item === 2 ? 99 : row.item }) });
    const [one, two, three] = await fetchAll([1], [2], [3]);
    expect([one, three]).to.deep.equal(['value 1', 'value 3']);
    expect(two).to.match(/^A loader must return only rows of the ids it was given/);
  });

  it('costs some 20 queries for one bad id among 1,000 callers', async () => {
    const { loads, fetchAll } = lendWith({ bad: [617] });
    const answers = await fetchAll(...Array.from({ length: 1_000 }, (_, item) => [item]));
    expect(answers.filter((answer) => answer.startsWith('no item'))).to.deep.equal(['no item 617']);
    expect(loads.length).to.be.within(15, 22);
  });

  it('of a source that is down costs 15 queries, however many callers there are', async () => {
    const all = Array.from({ length: 1_000 }, (_, item) => item);
    const { loads, fetchAll } = lendWith({ bad: all });
    const answers = await fetchAll(...all.map((item) => [item]));
    expect(answers.every((answer) => answer.startsWith('no item'))).to.equal(true);
    expect(loads).to.have.length(1 + 2 + 4 + 8);
  });

  it('with more bad ids than it has queries for costs 65 queries', async () => {
    const all = Array.from({ length: 1_000 }, (_, item) => item);
    const { loads, fetchAll } = lendWith({ bad: all.filter((item) => item < 500) });
    const answers = await fetchAll(...all.map((item) => [item]));
    expect(answers.slice(500).every((answer) => answer.startsWith('value'))).to.equal(true);
    expect(loads.length).to.be.within(40, 65);
  });

  it('is not tried again later than ten seconds after its failure', async () => {
    const clock = manualClock();
    const { cache, value, loads } = lendWith({ bad: [1], clock });
    // The halves: 1 and 2 fail together after eleven seconds, and are not parted any more.
    cache.on('load', () => loads.length > 1 && clock.advance(11_000));
    const ids = [1, 2, 3, 4];
    const answers = ids.map((item) => value.fetch({ item }).catch((error: Error) => error.message));
    expect(await Promise.all(answers)).to.deep.equal(['no item 1', 'no item 1', 'value 3', 'value 4']);
    expect(loads).to.have.length(3);
  });

  it('is not tried again for one caller, nor on a transaction', async () => {
    const { loads, value, fetchAll } = lendWith({ bad: [2] });
    expect(await fetchAll([1, 2, 3])).to.deep.equal(['no item 2']);
    expect(loads).to.have.length(1);
    const ids = [1, 2].map((item) => ({ item }));
    expect(await rejection(value.fetchMany(ids, { trx: 'a transaction' }))).to.have.property('message', 'no item 2');
    expect(loads).to.have.length(2);
  });

  it('in one of several batches leaves the others alone', async () => {
    const { loads, fetchAll } = lendWith({ bad: [5], loadBatchMax: 2 });
    expect(await fetchAll([1, 2], [3, 4], [5], [6])).to.deep.equal([
      ...['value 1, value 2', 'value 3, value 4'],
      ...['no item 5', 'value 6'],
    ]);
    expect(loads.slice(0, 3)).to.deep.equal([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    expect(loads.slice(3)).to.have.deep.members([[5], [6]]);
  });
});

describe('loadBatchMax of an entry', () => {
  function declare(loadBatchMax: number, verifyRate = 0) {
    const cache = new GenerationalCache({
      ...{ name: uniqueName(), store: memoryStore(), loadBatchMax: 4, verifyRate, verifyDelayMs: 0 },
    });
    lend({ what: 'the cache', close: () => cache.close() });
    const sizes: Record<'own' | 'default', number[]> = { own: [], default: [] };
    const items = cache.namespace('item', integer());
    const entry = (name: 'own' | 'default', options: { loadBatchMax?: number }) =>
      items.one(name, {
        load: async (ids) => (sizes[name].push(ids.length), ids.map(({ item }) => ({ item }))),
        by: ({ item }) => ({ item }),
        ...options,
      });
    return { cache, sizes, own: entry('own', { loadBatchMax }), other: entry('default', {}) };
  }
  const five = [1, 2, 3, 4, 5].map((item) => ({ item }));

  it('replaces that of the cache, also in the statistics', async () => {
    const { cache, sizes, own, other } = declare(2);
    await Promise.all([own.fetchMany(five), other.fetchMany(five)]);
    await cache.settled();
    expect(sizes).to.deep.equal({ own: [2, 2, 1], default: [4, 1] });
    await own.fetchMany(five);
    expect(cache.statistics.total('queries_avoided', { entry: 'own' })).to.equal(3);
  });

  it('bounds the loads of verifyRate too', async () => {
    const { cache, sizes, own } = declare(2, 1);
    await own.fetchMany(five);
    await cache.settled();
    sizes.own.length = 0;
    await own.fetchMany(five);
    await cache.settled();
    expect(sizes.own).to.deep.equal([2, 2, 1]);
  });

  it('must be a positive integer', () => {
    expect(() => declare(0)).to.throw(
      'loadBatchMax of entry "own" must be an integer from 1 to 1000000, but got 0. Leave it out for that of the cache.',
    );
  });
});
