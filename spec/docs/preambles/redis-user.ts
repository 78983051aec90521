/** A shop with an outbox; and a proof that a user of Redis can serve a cache and a relay. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { GenerationalCache, integer } from 'gencache';
import { knexSource, startRelay } from 'gencache/knex';
import { redisStore } from 'gencache/redis';
import { db, redis } from './outbox.js';

export * from './outbox.js';

/** Everything that a cache and a relay send, as this user; and Redis has refused it nothing. */
export async function proveUser(name: string, password: string): Promise<void> {
  const url = process.env['REDIS_URL']!.replace('//', `//${name}:${password}@`);
  const own = new Redis(url, { lazyConnect: true });
  const bound = { maxStalenessMs: 2_000 };
  const reading = { ...bound, readDeadlineMs: 5_000 };
  const relay = startRelay({ cache: 'shop', db, store: redisStore(own), ...bound });
  const cache = new GenerationalCache({ name: 'shop', store: redisStore(own), source: knexSource(db), ...reading });
  const customers = cache.namespace('customer', integer());
  const greeting = customers.one('greeting', {
    load: (ids, { db }) =>
      db<{ id: number }>('customer').whereIn(
        'id',
        ids.map((id) => Number(id.customer)),
      ),
    by: ({ id }) => ({ customer: id }),
  });
  while ((await greeting.lookup({ customer: 42 })).outcome === 'bypass') await sleep(50);
  await greeting.fetch({ customer: 42 });
  await cache.settled();
  await greeting.fetch({ customer: 42 });
  await greeting.delete({ customer: 42 });
  await customers.bump({ customer: 42 });
  const work = (trx: never) => customers.bump({ customer: 42 }, { trx });
  const { bump, strict } = await cache.transaction(work as never, { strict: true });
  assert.deepEqual([bump, strict], ['done', 'kept']);
  assert.equal(cache.statistics.total('hits'), 1);
  assert.equal(cache.statistics.total('store_failures'), 0);
  assert.equal(relay.status.failures, 0);
  await cache.close();
  await relay.stop();
  assert.deepEqual(await redis.call('acl', 'log'), []);
}
