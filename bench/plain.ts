import type { Redis } from 'ioredis';
import { decodePlain, plainPayload, TTL_MS } from './workload.js';

/** The other side of every hit: the same values under plain keys, read by plain GETs and the same codec. */
export interface Plain {
  readonly keys: readonly string[];
  get(index: number): Promise<unknown>;
  /** All keys by one MGET. */
  getMany(): Promise<unknown[]>;
  /** All keys by GETs in one turn. */
  getAtOnce(): Promise<unknown[]>;
}

/** Stores `count` values, of so many `rows`, under keys that a cache made by hand would have. */
export async function plainValues(redis: Redis, name: string, count: number, rows?: number): Promise<Plain> {
  const keys = Array.from({ length: count }, (_, index) => `${name}:detector:${index + 1}:environment:7:workflows`);
  const payload = plainPayload(7, rows);
  await Promise.all(keys.map((key) => redis.set(key, payload, 'PX', TTL_MS)));
  return {
    keys,
    get: async (index) => decodePlain(await redis.getBuffer(keys[index % count]!)),
    getMany: async () => (await redis.mgetBuffer(keys as string[])).map(decodePlain),
    getAtOnce: () => Promise.all(keys.map(async (key) => decodePlain(await redis.getBuffer(key)))),
  };
}
