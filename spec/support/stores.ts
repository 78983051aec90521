import { memoryStore, type MemoryStoreOptions, type Store } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { lendRedis, type LendRedisOptions } from './redis.js';

/** A store, as a suite that runs on each store gets it. */
export interface TestedStore {
  readonly name: 'memoryStore' | 'redisStore' | 'redisStore by RESP2';
  /** Whether its calls are commands on the shared Redis, which `recordCommands` sees. */
  readonly sendsCommands: boolean;
  /** Makes a place for data that no other place shares, apart from the names of keys on Redis. */
  place(): Place;
}

export interface Place {
  /** Opens the place, as one more process would. */
  open(): Store;
  /** Brings these keys `ms` closer to their expiry. */
  elapse(keys: readonly string[], ms: number): Promise<void>;
}

type Options = Pick<MemoryStoreOptions, 'maxBytes'>;

/** The table of stores: a suite of `describeOnEachStore` runs once for each row. */
function testedStores(options: Options): readonly TestedStore[] {
  const redis: TestedStore = { name: 'redisStore', sendsCommands: true, place: () => redisPlace() };
  // The run on ioredis 5 repeats what a client of Redis may change.
  if (process.env['IOREDIS'] === '5') return [redis];
  return [{ name: 'memoryStore', sendsCommands: false, place: () => memoryPlace(options) }, redis];
}

function memoryPlace(options: Options): Place {
  let elapsedMs = 1_000_000; // so that there are instants in the past
  const shared = memoryStore({ ...options, clock: { nowMs: () => performance.now() + elapsedMs } });
  return {
    open: () => shared,
    elapse: async (_keys, ms) => void (elapsedMs += ms),
  };
}

/** A spec can't move the clock of Redis, so `elapse` shortens the TTL of each key. */
function redisPlace(client: LendRedisOptions = {}): Place {
  return {
    open: () => redisStore(lendRedis({ ...client, lazyConnect: true })),
    async elapse(keys, ms) {
      const client = lendRedis();
      for (const key of keys) {
        const leftMs = await client.pttl(key);
        if (leftMs >= 0) await client.pexpire(key, leftMs - ms);
      }
    },
  };
}

/** Describes the same behaviour on each store. `options` are those of the in-memory store. */
export function describeOnEachStore(title: string, define: (store: TestedStore) => void, options: Options = {}): void {
  for (const store of testedStores(options)) describe(`${title}, on ${store.name}`, () => define(store));
}

/** As `describeOnEachStore`, and on the Redis store by RESP2 too: ioredis 6 speaks RESP3 unless told, ioredis 5 RESP2. */
export function describeOnEachStoreAndProtocol(title: string, define: (store: TestedStore) => void): void {
  describeOnEachStore(title, define);
  if (process.env['IOREDIS'] === '5') return;
  const byResp2: TestedStore = {
    name: 'redisStore by RESP2',
    sendsCommands: true,
    place: () => redisPlace({ protocol: 2 }),
  };
  describe(`${title}, on ${byResp2.name}`, () => define(byResp2));
}
