import { LRUCache } from 'lru-cache';
import { type Clock, monotonicClock } from '../clock.js';
import { describe } from '../describe.js';
import { ConfigurationError } from '../errors.js';
import { bumpsOf, generation, parseGeneration } from '../generation.js';
import type { FillReply, Store } from './store.js';

export interface MemoryStoreOptions {
  /** Keys and values together, at most, in bytes; the least recently used go first. Default: 64 MiB. */
  readonly maxBytes?: number;
  /** Default: monotonic time. For tests: `manualClock()`. */
  readonly clock?: Clock;
}

/** What lru-cache keeps beside a key and its value, about. */
const OVERHEAD_BYTES = 100;

/**
 * A store in this process's memory, with the semantics of the Redis one: TTLs, generations, atomic steps, bytes in
 * and out. For a single process, and for tests. Other processes know nothing of its bumps.
 */
export function memoryStore(options: MemoryStoreOptions = {}): Store {
  const maxBytes = options.maxBytes ?? 64 << 20;
  if (!Number.isInteger(maxBytes) || maxBytes < 1) {
    throw new ConfigurationError(
      `An in-memory store is bounded: maxBytes is a whole number above 0. Got ${describe(maxBytes)}. ` +
        'Leave it out for 64 MiB.',
    );
  }
  const clock = options.clock ?? monotonicClock;
  const values = new LRUCache<string, Buffer>({
    maxSize: maxBytes,
    sizeCalculation: (value, key) => key.length + value.length + OVERHEAD_BYTES,
    // lru-cache takes an instant of 0 for "has no TTL", and a clock may start there.
    perf: { now: () => clock.nowMs() + 1 },
    ttlResolution: 0,
  });
  const get = (key: string) => values.get(key) ?? null;
  const renew = (key: string, value: Buffer, ttlMs: number) => values.set(key, value, { ttl: ttlMs });

  // Nothing below awaits before it is done, so each call is atomic.
  return {
    name: 'memory',
    read: async (keys) => keys.map(get),
    async mint(keys, token, ttlMs) {
      return keys.map((key) => {
        const value = get(key);
        if (value !== null) return parseGeneration(value) ?? 'foreign';
        renew(key, Buffer.from(token), ttlMs);
        return token;
      });
    },
    async bump(keys, attempt, ttlMs) {
      return keys.map((key) => {
        const value = get(key);
        if (value === null) return 'missing';
        const token = parseGeneration(value);
        if (token === undefined) return 'foreign';
        const bumped = generation(bumpsOf(token) + 1, attempt);
        renew(key, Buffer.from(bumped), Math.max(ttlMs, values.getRemainingTTL(key)));
        return bumped;
      });
    },
    async fill({ guards, entries }) {
      const stands = guards.map(({ key, token, ttlMs }) => {
        const value = get(key);
        if (value === null || value.toString('latin1') !== token) return false;
        if (values.getRemainingTTL(key) < ttlMs / 2) renew(key, value, ttlMs);
        return true;
      });
      return entries.map((entry): FillReply => {
        if (!entry.guards.every((guard) => stands[guard])) return 'moved';
        renew(entry.key, entry.bytes, entry.ttlMs);
        return values.has(entry.key) ? 'filled' : 'oversized';
      });
    },
    delete: async (keys) => keys.filter((key) => values.delete(key)).length,
    close: async () => {},
  };
}
