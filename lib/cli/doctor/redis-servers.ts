import type { Cluster, Redis, RedisOptions } from 'ioredis';
import { keyPrefix, partitionName } from '../../model/key.js';
import { ClusterClient } from '../../store/redis/cluster/cluster-client.js';
import { slotOf } from '../../store/redis/cluster/slot.js';
import { ownerOf, readSlotMap, type SlotMap } from '../../store/redis/cluster/slot-map.js';
import { ignoreLaterErrors } from '../../store/redis/later-errors.js';
import { CLUSTER_PARTITIONS } from '../../store/redis/redis-store.js';
import { SentinelWatch } from '../../store/redis/sentinel-watch.js';
import type { RedisTemplate } from '../redis.js';

/** A server that does not answer within this time is away, in ms. */
const ANSWER_MS = 5_000;

const OPTIONS: Partial<RedisOptions> = {
  ...{ lazyConnect: true, connectTimeout: ANSWER_MS, commandTimeout: ANSWER_MS, sentinelCommandTimeout: ANSWER_MS },
  ...{ maxRetriesPerRequest: 0, retryStrategy: () => null, sentinelRetryStrategy: () => null },
  // With its check ioredis prints a warning for a user without INFO.
  enableReadyCheck: false,
};

/** A primary of the cache. */
export interface Primary {
  /** `host:port`, as the Cluster names it. */
  readonly name: string;
  readonly redis: Redis;
  /** Why there is no connection; undefined if there is one. */
  readonly error?: unknown;
}

/** A partition of the cache, and the primary that has its slot, if one does. */
export interface PlacedPartition {
  /** `17/64`, as in its keys; `0` for the only one. */
  readonly name: string;
  readonly prefix: string;
  readonly primary: Primary | undefined;
}

/** Lends `work` a connection to each primary of a cache. Rejects with the cause if the only primary can't be reached. */
export async function withRedisServers<T>(
  template: RedisTemplate,
  cache: string,
  work: (partitions: readonly PlacedPartition[], primaries: readonly Primary[]) => Promise<T>,
): Promise<T> {
  if ('cluster' in template) return withCluster(template.cluster, partitionsOf(cache, template.partitions), work);
  const redis = template.redis.duplicate(OPTIONS);
  try {
    await connect(redis);
    const primary = { name: '', redis };
    return await work([{ ...partitionsOf(cache, 1)[0]!, primary }], [primary]);
  } finally {
    redis.disconnect();
  }
}

async function withCluster<T>(
  cluster: Cluster,
  partitions: readonly Omit<PlacedPartition, 'primary'>[],
  work: (partitions: readonly PlacedPartition[], primaries: readonly Primary[]) => Promise<T>,
): Promise<T> {
  const client = new ClusterClient(cluster);
  const map = await readMap(client);
  const primaries = new Map<string, Primary>();
  try {
    for (const { primary } of map.ranges) {
      const { key: name, address } = client.reach(primary);
      if (primaries.has(name)) continue;
      const redis = address.connect(OPTIONS);
      primaries.set(name, { name, redis });
      const error = await connect(redis).then(
        () => undefined,
        (cause: unknown) => cause,
      );
      if (error !== undefined) primaries.set(name, { name, redis, error });
    }
    const placed = partitions.map((partition) => {
      const owner = ownerOf(map, slotOf(partition.prefix));
      return { ...partition, primary: owner && primaries.get(client.reach(owner).key) };
    });
    return await work(placed, [...primaries.values()]);
  } finally {
    for (const { redis } of primaries.values()) redis.disconnect();
  }
}

/** Asks one node after the other that the user named. */
async function readMap(client: ClusterClient): Promise<SlotMap> {
  let failure: unknown;
  for (const address of client.startupNodes) {
    const node = address.connect(OPTIONS);
    try {
      await connect(node);
      return await readSlotMap(node, String(address.options.host));
    } catch (error) {
      failure ??= error;
    } finally {
      node.disconnect();
    }
  }
  throw failure;
}

/** ioredis rejects with "Connection is closed"; the cause comes in an event before. */
async function connect(redis: Redis): Promise<void> {
  let cause: Error | undefined;
  redis.on('error', (error: Error) => {
    ignoreLaterErrors(redis);
    cause ??= error;
  });
  const sentinels = new SentinelWatch(redis.options, () => {});
  if (redis.options.sentinels) sentinels.follow(redis);
  try {
    await redis.connect();
  } catch (error) {
    throw sentinels.explain(cause ?? (error as Error));
  } finally {
    sentinels.close();
  }
}

/** The names of the partitions of a cache on a Cluster; undefined elsewhere. */
export function partitionNames(template: RedisTemplate, cache: string): string[] | undefined {
  return 'cluster' in template ? partitionsOf(cache, template.partitions).map(({ name }) => name) : undefined;
}

function partitionsOf(cache: string, count = CLUSTER_PARTITIONS): Omit<PlacedPartition, 'primary'>[] {
  return Array.from({ length: count }, (_, index) => ({
    name: partitionName(index, count),
    prefix: keyPrefix(cache, index, count),
  }));
}
