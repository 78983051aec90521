import { expect } from 'chai';
import { GenerationalCache, integer } from '../../lib/index.js';
import { endsWithin } from '../../lib/async/ends-within.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { type Deferred, deferred, eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';
import { describeOnEachStore } from '../support/stores.js';

describeOnEachStore('entries that no caller waits for any more, while another process loads them', ({ place }) => {
  it('hold up neither settled() nor close()', async () => {
    const at = place();
    const name = uniqueName();
    const lendProcess = () => {
      const held = new Map<number, Deferred<void>>();
      const cache = new GenerationalCache({
        ...{ readDeadlineMs: READ_DEADLINE_MS, fillDeadlineMs: READ_DEADLINE_MS, loadSoftTimeoutMs: 60_000 },
        ...{ loadsMax: 1, name, store: at.open() },
      });
      lend({
        what: `a process of ${name}`,
        close() {
          for (const { reject } of held.values()) reject(new Error('the spec ended'));
          return cache.close();
        },
      });
      const loads: number[][] = [];
      const value = cache.namespace('item', integer()).one('value', {
        async load(ids) {
          const items = ids.map(({ item }) => Number(item));
          loads.push(items);
          for (const item of items) await held.get(item)?.promise;
          return ids;
        },
        by: ({ item }) => ({ item }),
      });
      return { cache, held, loads, value };
    };
    const one = lendProcess();
    const other = lendProcess();
    one.held.set(1, deferred());
    const loading = one.value.fetch({ item: 1 });
    await eventually(() => expect(one.loads).to.deep.equal([[1]]));

    other.held.set(9, deferred());
    other.held.set(2, deferred());
    const first = other.value.fetch({ item: 9 }); // takes the only place
    await eventually(() => expect(other.loads).to.deep.equal([[9]]));
    const calls = [];
    for (let turn = 0; turn < 2; turn++) {
      calls.push(rejection(other.value.fetchMany([{ item: 1 }, { item: 2 }])));
      await eventually(() => expect(other.cache.state.loads.waiting).to.equal(2));
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    other.held.get(9)!.resolve();
    await first;
    await eventually(() => expect(other.loads).to.deep.equal([[9], [2]]));
    await eventually(() => expect(other.cache.state.loads.elsewhere).to.equal(1));
    const failure = new Error('no route to host');
    other.held.get(2)!.reject(failure);
    expect(await Promise.all(calls)).to.deep.equal([failure, failure]);
    await eventually(() => expect(other.cache.state.loads.elsewhere).to.equal(0));
    expect(await endsWithin(1_000, other.cache.settled())).to.equal(true);
    one.held.get(1)!.resolve();
    await loading;
  });
});
