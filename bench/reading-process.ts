/**
 * A process of an application that reads through a cache: the program of `readers.ts`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { GenerationalCache, integer } from '../lib/index.js';
import { redisStore } from '../lib/store/redis/index.js';
import { instantMs, obeyOrders } from './other-process.js';

export interface Reading {
  /** Keys, in the order of reading; each is read by one of the readers. */
  readonly keys: readonly number[];
  readonly readers: number;
  /** When the readers begin. */
  readonly atMs: number;
}

export interface Opening {
  readonly redisUrl: string;
  readonly cache: string;
  readonly ttlMs: number;
  readonly staleMs?: number;
  /** Duration of a load, in ms. */
  readonly loadMs: number;
}

export type ReadingOrder = { readonly open: Opening } | { readonly read: Reading };

export interface ReadingReport {
  /** Duration of each read, in ms. */
  readonly latencies: readonly number[];
  readonly failed: number;
  /** Ids that were loaded, and most loads at once. */
  readonly loaded: number;
  readonly runningMax: number;
  readonly staleHits: number;
}

function open({ redisUrl, cache: name, ttlMs, staleMs = 0, loadMs }: Opening) {
  const cache = new GenerationalCache({
    ...{ name, ttlMs, staleMs, readDeadlineMs: 10_000 },
    store: redisStore(new Redis(redisUrl, { lazyConnect: true })),
  });
  const counts = { loaded: 0, running: 0, runningMax: 0 };
  const value = cache.namespace('key', integer()).one('value', {
    async load(ids) {
      counts.loaded += ids.length;
      counts.runningMax = Math.max(counts.runningMax, ++counts.running);
      await sleep(loadMs);
      counts.running--;
      return ids.map(({ key }) => ({ key, value: 'x'.repeat(600) }));
    },
    by: ({ key }) => ({ key }),
  });
  return { cache, value, counts };
}

let opened: ReturnType<typeof open> | undefined;

async function read({ keys, readers, atMs }: Reading): Promise<ReadingReport> {
  const { cache, value, counts } = opened!;
  Object.assign(counts, { loaded: 0, runningMax: 0 });
  const staleBefore = cache.statistics.total('stale_hits');
  const latencies: number[] = [];
  let failed = 0;
  let next = 0;
  await sleep(Math.max(0, atMs - instantMs()));
  const reader = async () => {
    while (next < keys.length) {
      const key = keys[next++]!;
      const startedAtMs = performance.now();
      await value.fetch({ key }).catch(() => failed++);
      latencies.push(performance.now() - startedAtMs);
    }
  };
  await Promise.all(Array.from({ length: readers }, reader));
  await cache.settled();
  const { loaded, runningMax } = counts;
  return { latencies, failed, loaded, runningMax, staleHits: cache.statistics.total('stale_hits') - staleBefore };
}

async function obey(order: ReadingOrder): Promise<unknown> {
  if ('read' in order) return read(order.read);
  opened = open(order.open);
  await opened.value.lookup({ key: -1 });
  return null;
}

obeyOrders(obey);
