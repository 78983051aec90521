import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { GenerationalCache, integer, type StaleHitEvent } from '../../lib/index.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { lend } from '../support/lenders.js';
import { uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';
import { describeOnEachStore } from '../support/stores.js';

const TTL_MS = 100;

describeOnEachStore('a value within staleOnErrorMs, whose load fails late', ({ place }) => {
  async function lendStale(staleOnErrorMs: number) {
    const origin = { error: undefined as Error | undefined };
    const cache = new GenerationalCache({
      ...{ ttlMs: TTL_MS, ttlJitter: 0, readDeadlineMs: READ_DEADLINE_MS, fillDeadlineMs: READ_DEADLINE_MS },
      ...{ staleOnErrorMs, loadSoftTimeoutMs: 60_000, name: uniqueName(), store: place().open() },
    });
    lend({ what: 'a cache', close: () => cache.close() });
    const value = cache.namespace('item', integer()).one('value', {
      async load(ids) {
        if (origin.error) {
          await sleep(1_000);
          throw origin.error;
        }
        return ids;
      },
      by: ({ item }) => ({ item }),
    });
    await value.fetch({ item: 1 });
    await cache.settled();
    await sleep(TTL_MS + 5);
    origin.error = new Error('no route to host');
    const events: StaleHitEvent[] = [];
    cache.on('staleHit', (event) => events.push(event));
    return { origin, value, events };
  }

  it('is marked with its age when it is served', async () => {
    const { value, events } = await lendStale(60_000);
    await value.fetch({ item: 1 });
    expect(events).to.have.length(1);
    expect(events[0]!.staleForMs).to.be.at.least(1_000);
  });

  it('is not served after the grace', async () => {
    const { origin, value } = await lendStale(500);
    expect(await rejection(value.fetch({ item: 1 }))).to.equal(origin.error);
  });
});
