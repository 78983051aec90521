import { redisStore } from '../../lib/store/redis/index.js';
import { installOutbox, type Relay, type RelayOptions, startRelay } from '../../lib/knex/index.js';
import { lend } from './lenders.js';
import { lendDatabase, type LendDatabaseOptions } from './postgres.js';
import { lendRedis, uniqueName } from './redis.js';

/** A database of a spec's own with an outbox in it. */
export async function lendOutbox(options: LendDatabaseOptions = {}) {
  const db = await lendDatabase(options);
  await installOutbox(db);
  return db;
}

/** A relay on the shared Redis, unless a store or a URL says otherwise; stopped after the spec. */
export function lendRelay(
  options: Omit<RelayOptions, 'store' | 'cache'> & { store?: RelayOptions['store']; cache?: string; url?: string },
): Relay {
  const { url, ...rest } = options;
  const relay = startRelay({
    store: options.store ?? redisStore(lendRedis({ lazyConnect: true, ...(url === undefined ? {} : { url }) })),
    cache: uniqueName(),
    stopDeadlineMs: 2_000,
    ...rest,
  });
  lend({ what: 'a relay', close: () => relay.stop() });
  return relay;
}
