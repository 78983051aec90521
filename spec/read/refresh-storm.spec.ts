import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { GenerationalCache, integer } from '../../lib/index.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { deferred } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { uniqueName } from '../support/redis.js';
import { describeOnEachStore } from '../support/stores.js';

const TTL_MS = 60;

describeOnEachStore('a stale entry whose load takes longer than the soft timeout', ({ place }) => {
  it('is loaded behind the answers once, not anew after each soft timeout', async () => {
    const name = uniqueName();
    const at = place();
    const end = deferred();
    let loads = 0;
    const processes = Array.from({ length: 3 }, () => {
      const cache = new GenerationalCache({
        ...{ ttlMs: TTL_MS, ttlJitter: 0, readDeadlineMs: READ_DEADLINE_MS, fillDeadlineMs: READ_DEADLINE_MS },
        ...{ staleMs: 60_000, loadSoftTimeoutMs: 100, leaseTtlMs: 100 },
        name,
        store: at.open(),
      });
      lend({
        what: 'a process',
        close() {
          end.resolve();
          return cache.close();
        },
      });
      const value = cache.namespace('item', integer()).one('value', {
        async load(ids) {
          if (++loads > 1) await end.promise;
          return ids.map(({ item }) => ({ item, version: loads }));
        },
        by: ({ item }) => ({ item }),
        value: ({ version }) => ({ version }),
      });
      return { cache, value };
    });
    await processes[0]!.value.fetch({ item: 1 });
    await processes[0]!.cache.settled();
    await sleep(TTL_MS + 5);
    for (let i = 0; i < 100; i++) {
      for (const { value } of processes) expect(await value.fetch({ item: 1 })).to.deep.equal({ version: 1 });
      await sleep(10);
    }
    // The first load, and those of the processes which can't know that another one still works on it.
    expect(loads - 1).to.be.at.most(processes.length);
  });

  it('leaves room for readers of other entries', async () => {
    const end = deferred();
    let stalls = false;
    const cache = new GenerationalCache({
      ...{ ttlMs: TTL_MS, ttlJitter: 0, readDeadlineMs: READ_DEADLINE_MS, fillDeadlineMs: READ_DEADLINE_MS },
      ...{ staleMs: 60_000, loadSoftTimeoutMs: 50, loadQueueTimeoutMs: 500, loadsMax: 5 },
      name: uniqueName(),
      store: place().open(),
    });
    lend({
      what: 'a cache',
      close() {
        end.resolve();
        return cache.close();
      },
    });
    const value = cache.namespace('item', integer()).one('value', {
      async load(ids) {
        if (stalls && ids[0]!.item === 1) await end.promise; // one slow query
        return ids;
      },
      by: ({ item }) => ({ item }),
    });
    await value.fetch({ item: 1 });
    await cache.settled();
    await sleep(TTL_MS + 5);
    stalls = true;
    for (let i = 0; i < 50; i++) {
      await value.fetch({ item: 1 });
      await sleep(10);
    }
    expect(await value.fetch({ item: 2 })).to.deep.equal({ item: 2 });
  });
});
