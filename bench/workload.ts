/**
 * What every measure stores: five workflows of one detector and environment, about 600 bytes as JSON.
 */
import { Redis, type RedisOptions } from 'ioredis';
import { decode, encode } from '../lib/codec/codec.js';
import {
  type CacheSettings,
  GenerationalCache,
  integer,
  nullable,
  type PartitionedStore,
  type Store,
} from '../lib/index.js';
import { redisStore } from '../lib/store/redis/index.js';
import type { Workflow } from '../lib/workflow-engine/index.js';

/** Nothing expires while it is measured. */
export const TTL_MS = 3_600_000;

/** How many detectors most measures go round, so that no reply is the one before. */
export const DETECTORS = 100;
export const ENVIRONMENT = 7;

const FIVE = 5;

/** A value of their own for each call, as a loader gives; of more rows where a measure wants more bytes. */
export function fiveWorkflows(environmentId: number | null, count = FIVE): Workflow[] {
  return Array.from({ length: count }, (_, index) => ({
    id: 1_001 + index,
    name: `Notify on-call ${index}`,
    environmentId,
    config: { action: 'page' },
    updatedAt: new Date(1_790_000_000_000 + 60_000 * index),
  }));
}

/** The bytes of such a value as the library's codec writes them: what the plain side stores, without our envelope. */
export function plainPayload(environmentId: number | null, count = FIVE): Buffer {
  return encode(fiveWorkflows(environmentId, count)).bytes;
}

/** The library's codec on the bytes of a plain GET. */
export function decodePlain(bytes: Buffer | null): unknown {
  if (bytes === null) throw new Error('A plain GET hits what was stored for it: its key is gone.');
  return decode(PLAIN_TAG, bytes);
}
const PLAIN_TAG = encode(fiveWorkflows(null)).tag;

/** A client that is connected, as ioredis comes but for `options`. */
export async function connect(url: string, options: Omit<RedisOptions, 'replyMapping'> = {}): Promise<Redis> {
  const redis = new Redis(url, options);
  await redis.ping();
  return redis;
}

export interface ThreeLevels {
  readonly name: string;
  readonly cache: GenerationalCache;
  readonly detectors: ReturnType<typeof declare>['detectors'];
  readonly environments: ReturnType<typeof declare>['environments'];
  readonly workflows: ReturnType<typeof declare>['workflows'];
  close(): Promise<void>;
}

/** Deadlines guard callers, and are armed here as they are there; a noisy machine must not turn hits into loads. */
export const DEADLINES = { readDeadlineMs: 10_000, fillDeadlineMs: 10_000, bumpDeadlineMs: 10_000 };

/** The store at a URL, or the one given. */
export function storeAt(at: string | PartitionedStore): Store | PartitionedStore {
  return typeof at === 'string' ? redisStore(new Redis(at, { lazyConnect: true })) : at;
}

/** A process of an application: global > detector > environment, and its workflows there. Loads without a database. */
export function threeLevels(
  at: string | PartitionedStore,
  name: string,
  settings: Omit<CacheSettings, 'name'> = {},
  count = FIVE,
): ThreeLevels {
  const cache = new GenerationalCache({ name, store: storeAt(at), ttlMs: TTL_MS, ...DEADLINES, ...settings });
  return { name, cache, ...declare(cache, count), close: () => cache.close() };
}

function declare(cache: GenerationalCache, count: number) {
  const detectors = cache.namespace('detector', integer());
  const environments = detectors.namespace('environment', nullable(integer()));
  const workflows = environments.list('workflows', {
    load: async (ids) =>
      ids.flatMap((id) => fiveWorkflows(id.environment as number | null, count).map((workflow) => ({ id, workflow }))),
    by: ({ id }) => id,
    value: ({ workflow }): Workflow => workflow,
  });
  return { detectors, environments, workflows };
}

/** Ids of as many scopes, in one environment. */
export function scopeIds(count: number, environment: number | null = ENVIRONMENT, first = 1) {
  return Array.from({ length: count }, (_, index) => ({ detector: first + index, environment }));
}

/** Throws unless a cache answered only by hits, so many of them, since `since`. */
export function onlyHits(cache: Pick<GenerationalCache, 'statistics'>, since: number): void {
  const { statistics } = cache;
  const loaded = statistics.total('misses') + statistics.total('bypasses');
  if (loaded > since) throw new Error(`A hit is measured: ${loaded - since} reads were none.`);
}

/** What `onlyHits` starts from. */
export function notHits({ statistics }: Pick<GenerationalCache, 'statistics'>): number {
  return statistics.total('misses') + statistics.total('bypasses');
}
