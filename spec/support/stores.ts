import { memoryStore, type MemoryStoreOptions, type PartitionedStore, type Store } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import type { Redis } from 'ioredis';
import { lendRedis, type LendRedisOptions } from './redis.js';
import { privateRedisCluster, type RedisCluster } from './redis-cluster.js';

/** A store, as a suite that runs on each store gets it. */
export interface TestedStore<Opened = Store> {
  readonly name: 'memoryStore' | 'redisStore' | 'redisStore by RESP2' | 'redisStore of a Cluster';
  /** Whether its calls are commands on the shared Redis, which `recordCommands` sees. */
  readonly sendsCommands: boolean;
  /** Makes a place for data that no other place shares, apart from the names of keys on Redis. */
  place(): Place<Opened>;
}

export interface Place<Opened = Store> {
  /** Opens the place, as one more process would. */
  open(): Opened;
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
      for (const key of keys) await elapseKey(client, key, ms);
    },
  };
}

/** A cache with one partition on a Redis Cluster. */
function clusterPlace(cluster: RedisCluster): Place<PartitionedStore> {
  return {
    open: () => redisStore(cluster.client(), { partitions: 1 }),
    async elapse(keys, ms) {
      for (const key of keys) await elapseKey((await cluster.owner(key)).admin, key, ms);
    },
  };
}

async function elapseKey(client: Redis, key: string, ms: number): Promise<void> {
  const leftMs = await client.pttl(key);
  if (leftMs >= 0) await client.pexpire(key, leftMs - ms);
}

/** Describes the same behaviour on each store. `options` are those of the in-memory store. */
export function describeOnEachStore(title: string, define: (store: TestedStore) => void, options: Options = {}): void {
  for (const store of testedStores(options)) describe(`${title}, on ${store.name}`, () => define(store));
}

/**
 * As `describeOnEachStore`, and on the store of a Redis Cluster, and on the Redis store by RESP2 too: ioredis 6 speaks RESP3
 * unless told, ioredis 5 RESP2.
 */
export function describeOnEachStoreAndProtocol(
  title: string,
  define: (store: TestedStore<Store | PartitionedStore>) => void,
): void {
  describeOnEachStore(title, define);
  describe(`${title}, on redisStore of a Cluster`, () => {
    let cluster: RedisCluster;
    before(async () => void (cluster = await privateRedisCluster({ replicas: 0 })));
    define({ name: 'redisStore of a Cluster', sendsCommands: false, place: () => clusterPlace(cluster) });
  });
  if (process.env['IOREDIS'] === '5') return;
  const byResp2: TestedStore = {
    name: 'redisStore by RESP2',
    sendsCommands: true,
    place: () => redisPlace({ protocol: 2 }),
  };
  describe(`${title}, on ${byResp2.name}`, () => define(byResp2));
}

/** A store whose caches have several partitions, all of them in this one. */
export function partitioned(store: Store, partitions: number): PartitionedStore {
  return {
    name: store.name,
    partitions,
    unreachable: [],
    partition: () => store,
    listen: (listener) => store.listen?.(listener),
    close: () => store.close(),
  };
}

/** A store whose caches have several partitions, which lie on these stores in turn. */
export function spread(stores: readonly Store[], partitions: number): PartitionedStore {
  return {
    name: stores[0]!.name,
    partitions,
    unreachable: [],
    partition: (prefix) => stores[Number(/:(\d+)\//.exec(prefix)![1]) % stores.length]!,
    listen(listener) {
      for (const store of stores) store.listen?.(listener);
    },
    async close() {
      for (const store of stores) await store.close();
    },
  };
}
