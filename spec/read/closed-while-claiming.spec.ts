import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { ClosedError, GenerationalCache, integer, memoryStore, type Store } from '../../lib/index.js';
import { endsWithin } from '../../lib/async/ends-within.js';
import { deferred, eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';

describe('a claim under way when close() has waited for long enough', () => {
  it('leaves no reader without an answer', async () => {
    const shared = memoryStore();
    const name = uniqueName();
    const end = deferred();
    const lendProcess = (store: Store) => {
      const cache = new GenerationalCache({
        name,
        store,
        closeDeadlineMs: 50,
        loadSoftTimeoutMs: 60_000,
        leaseTtlMs: 60_000,
      });
      lend({
        what: `a process of ${name}`,
        close() {
          end.resolve();
          return cache.close();
        },
      });
      const value = cache.namespace('item', integer()).one('value', {
        async load(ids) {
          await end.promise;
          return ids;
        },
        by: ({ item }) => ({ item }),
      });
      return { cache, value };
    };
    let claiming: Promise<void> | undefined;
    const slow: Store = {
      ...shared,
      async claim(batch, deadline) {
        const claimed = await shared.claim(batch, deadline);
        if (batch.token !== undefined) await claiming; // the reply is on its way
        return claimed;
      },
    };
    const one = lendProcess(shared);
    const other = lendProcess(slow);
    const loading = [one.value.fetch({ item: 1 }), one.value.fetch({ item: 2 })];
    await eventually(() => expect(one.cache.state.loads.running).to.be.at.least(1));
    const first = rejection(other.value.fetch({ item: 1 }));
    await eventually(() => expect(other.cache.state.loads.elsewhere).to.equal(1));
    const reply = deferred();
    claiming = reply.promise;
    const second = rejection(other.value.fetch({ item: 2 }));
    await sleep(20);
    await other.cache.close();
    expect(await first).to.be.an.instanceOf(ClosedError);
    reply.resolve();
    expect(await endsWithin(2_000, second)).to.equal(true);
    end.resolve();
    await Promise.all(loading);
  });
});
