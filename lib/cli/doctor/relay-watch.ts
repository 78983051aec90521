import { setTimeout as sleep } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import { freshnessKey, generationKey, keyPrefix, markKey } from '../../model/key.js';
import { MARK_TTL_MS } from '../../ports/store.js';

/** What relays leave in Redis. */
export interface Watched {
  /** Whether one renewed the mark while it was watched. */
  readonly alive: boolean;
  /** The mark that stands, and how long ago it was renewed, in ms. */
  readonly mark: string | undefined;
  readonly silentMs: number | undefined;
  /** The bounds that are being vouched for, in ms. */
  readonly boundsMs: readonly number[];
  /** Whether a cache of this name has been read: only readers make the global generation, no relay does. */
  readonly used: boolean;
}

/** A relay checks every second at least, unless it fails and backs off. */
const WATCH_MS = 3_000;
const LOOK_EVERY_MS = 50;
/** Two instants of the same expiry, as two looks reckon them, differ by this at most. */
const ROUNDING_MS = 5;

/** Bounds as people choose them: 1, 1.5, 2, ... times a power of ten, and whole minutes. */
const LIKELY_BOUNDS_MS = [
  ...[100, 1_000, 10_000, 100_000, 1_000_000].flatMap((unit) =>
    [1, 1.2, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 7.5, 8, 9].map((times) => unit * times),
  ),
  ...Array.from({ length: 60 }, (_, i) => (i + 1) * 60_000),
];

/**
 * Watches the mark until a relay renews it, 3 s at most. Each check of a relay makes it expire an hour later, so its
 * expiry tells when the last one was. Reads only; a command each 50 ms.
 *
 * Keys are asked for, not searched: without `boundsMs` those of bounds that are likely.
 */
export async function watchRelay(
  redis: Redis,
  cache: string,
  incarnation: string | undefined,
  boundsMs: readonly number[],
): Promise<Watched> {
  const prefix = keyPrefix(cache);
  const first = await look(redis, markKey(prefix));
  let last = first;
  const untilMs = performance.now() + WATCH_MS;
  while (!renewed(first, last) && performance.now() < untilMs) {
    await sleep(LOOK_EVERY_MS);
    last = await look(redis, markKey(prefix));
  }
  const asked = [...new Set(boundsMs.length > 0 ? boundsMs : LIKELY_BOUNDS_MS)].sort((a, b) => a - b);
  const values = await redis.mget(asked.map((boundMs) => freshnessKey(prefix, boundMs)));
  const used = await redis.exists(generationKey(prefix, ''));
  return {
    alive: renewed(first, last),
    mark: last?.mark,
    silentMs: last === undefined ? undefined : Math.max(0, last.nowMs - last.expiresAtMs + MARK_TTL_MS),
    // One that names another server was left by it, and no reader believes it.
    boundsMs: asked.filter((_, i) => incarnation !== undefined && values[i]?.startsWith(`${incarnation} `) === true),
    used: used === 1,
  };
}

interface Look {
  readonly mark: string;
  readonly nowMs: number;
  readonly expiresAtMs: number;
}

/** All by the server's clock. One transaction, since a renewal may come between. */
async function look(redis: Redis, key: string): Promise<Look | undefined> {
  const replies = await redis.multi().get(key).time().pttl(key).exec();
  const [mark, time, ttlMs] = (replies ?? []).map(([error, reply]) => {
    if (error) throw error;
    return reply;
  }) as [string | null, [string, string], number];
  if (mark === null) return undefined;
  const nowMs = Number(time[0]) * 1_000 + Number(time[1]) / 1_000;
  return { mark, nowMs, expiresAtMs: nowMs + ttlMs };
}

function renewed(first: Look | undefined, last: Look | undefined): boolean {
  if (last === undefined) return false;
  return first === undefined || last.expiresAtMs > first.expiresAtMs + ROUNDING_MS;
}
