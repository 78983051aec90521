import { Cluster } from 'ioredis';
import { keyPrefix, partitionOf } from '../lib/model/key.js';
import { recordCommands } from '../spec/support/commands.js';
import { type RedisCluster, type RedisClusterOptions, startRedisCluster } from '../spec/support/redis-cluster.js';
import { plainPayload, TTL_MS } from './workload.js';

/** Partitions of a cache on a Redis Cluster, by default. */
export const PARTITIONS = 64;

/** A private Redis Cluster, and a plain client of it, as ioredis comes. */
export interface BenchCluster {
  readonly servers: RedisCluster;
  readonly plain: Cluster;
}

/** Runs `work` on a Redis Cluster of its own: three primaries, by default without replicas. */
export async function onCluster<T>(
  work: (cluster: BenchCluster) => Promise<T>,
  options: RedisClusterOptions = { replicas: 0 },
): Promise<T> {
  const servers = await startRedisCluster(options);
  const plain = clientOf(servers);
  try {
    return await work({ servers, plain });
  } finally {
    plain.disconnect();
    await servers.stop();
  }
}

/** A client that knows one node; it connects when it is used. */
export function clientOf({ nodes }: RedisCluster): Cluster {
  const client = new Cluster([{ host: '127.0.0.1', port: nodes[0]!.port }], { lazyConnect: true });
  // A command rejects besides; without a listener ioredis would print the error.
  client.on('error', () => {});
  return client;
}

/** Returns the hash tag of the partition that a detector lies in, as a cache of this name has it. */
export function tagOf(cache: string, detector: number): string {
  return keyPrefix(cache, partitionOf(`detector=${detector}`, PARTITIONS), PARTITIONS).replace(/^.*(\{.*\}).*$/, '$1');
}

/** Stores the plain side's value under these keys. */
export async function fillPlain({ plain }: BenchCluster, keys: readonly string[]): Promise<void> {
  const payload = plainPayload(7);
  await Promise.all(keys.map((key) => plain.set(key, payload, 'PX', TTL_MS)));
}

/**
 * Counts the commands that clients send to the primaries for this work. Throws unless each of the partitions with these
 * hash tags gets exactly one.
 */
export async function onePerPartition(
  { servers: { primaries } }: BenchCluster,
  tags: readonly string[],
  work: () => unknown,
): Promise<number> {
  const found: string[] = [];
  const record = async ([node, ...others]: typeof primaries): Promise<void> => {
    if (node === undefined) return void (await work());
    const { commands } = await recordCommands(node.server.url, () => record(others));
    for (const command of commands) {
      const touched = new Set(command.flatMap((argument) => /^gencache:(\{.*?\})/.exec(argument)?.[1] ?? []));
      found.push([...touched].join() || command.join(' '));
    }
  };
  await record(primaries);
  const wanted = new Set(tags);
  if (found.length !== wanted.size || found.some((tag) => !wanted.has(tag)) || new Set(found).size !== found.length) {
    throw new Error(
      `Each partition touched gets one command: ${wanted.size} are touched, and commands went to ${found.join(', ')}.`,
    );
  }
  return found.length;
}
