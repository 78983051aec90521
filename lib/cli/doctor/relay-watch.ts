import { monotonicMs, sleep } from '../../async/scheduling.js';
import type { Redis } from 'ioredis';
import { DEMAND_STANDS_MS, parseDemands } from '../../model/bound-demands.js';
import { demandsKey, freshnessKey, generationKey, markKey } from '../../model/key.js';
import { MARK_TTL_MS } from '../../ports/store.js';

/** The traces of relays in Redis, after a watch of 3 s at most. */
export interface RelayWatch {
  /** Whether a relay renewed the mark during the watch, or one pause of the relays before it at the longest. */
  readonly isAlive: boolean;
  /** The mark that stands, and the time since its last renewal, in ms. */
  readonly mark: string | undefined;
  readonly silentMs: number | undefined;
  /** The bounds that a relay keeps, in ms. */
  readonly boundsMs: readonly number[];
  /** The bounds that a relay must keep, in ms, and that no relay keeps: the user asked for them, or readers did. */
  readonly unkept: readonly UnkeptBound[];
  /** Whether a cache of this name has been read: readers mint the global generation, relays never do. */
  readonly hasReaders: boolean;
}

export interface UnkeptBound {
  readonly boundMs: number;
  /** Time since readers asked for the bound, in ms; undefined for a bound that the user alone asked for. */
  readonly askedMs: number | undefined;
}

/** A relay that works renews the mark every second. */
const WATCH_MS = 3_000;
const LOOK_EVERY_MS = 50;
/** Two looks at the same expiry differ by this at most. */
const ROUNDING_MS = 5;

/** Bounds that people choose: 1, 1.5, 2, ... times a power of ten, and whole minutes. */
const LIKELY_BOUNDS_MS = [
  ...[100, 1_000, 10_000, 100_000, 1_000_000].flatMap((unit) =>
    [1, 1.2, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 7.5, 8, 9].map((times) => unit * times),
  ),
  ...Array.from({ length: 60 }, (_, i) => (i + 1) * 60_000),
];

export interface WatchedRelay {
  /** Of the keys of the cache's partition. */
  readonly prefix: string;
  readonly incarnation: string | undefined;
  /** The bounds that a relay must keep; if empty, the likely ones are looked for. */
  readonly boundsMs: readonly number[];
  /** The longest pause of the relays, in ms. */
  readonly pollMs: number;
}

/**
 * Watches the mark until a relay renews it, 3 s at most. Each check of a relay makes the mark expire an hour later, so the
 * expiry tells the instant of the last check. Reads only: one command each 50 ms. Asks for keys by name, and scans none.
 */
export async function watchRelay(
  redis: Redis,
  { prefix, incarnation, boundsMs, pollMs }: WatchedRelay,
): Promise<RelayWatch> {
  const first = await readMark(redis, markKey(prefix));
  let last = first;
  const untilMs = monotonicMs() + WATCH_MS;
  const isAlive = () => isRenewed(first, last) || isWithinPause(last, pollMs);
  while (!isAlive() && monotonicMs() < untilMs) {
    await sleep(LOOK_EVERY_MS);
    last = await readMark(redis, markKey(prefix));
  }
  const demanded = await readDemands(redis, demandsKey(prefix));
  const required = new Set([...boundsMs, ...demanded.keys()]);
  const asked = [...new Set([...required, ...(boundsMs.length > 0 ? [] : LIKELY_BOUNDS_MS)])].sort((a, b) => a - b);
  const [global, ...values] = await redis.mget([
    generationKey(prefix, ''),
    ...asked.map((boundMs) => freshnessKey(prefix, boundMs)),
  ]);
  // A value that names another server is left over from it; readers ignore it.
  const isKept = (i: number) => incarnation !== undefined && values[i]?.startsWith(`${incarnation} `) === true;
  return {
    isAlive: isAlive(),
    mark: last?.mark,
    silentMs: last && silentMsOf(last),
    boundsMs: asked.filter((_, i) => isKept(i)),
    unkept: asked
      .filter((boundMs, i) => required.has(boundMs) && !isKept(i))
      .map((boundMs) => ({ boundMs, askedMs: demanded.get(boundMs) })),
    hasReaders: global !== null,
  };
}

/** The bounds that readers have asked for while no relay kept them, each with the time since, in ms. */
async function readDemands(redis: Redis, key: string): Promise<ReadonlyMap<number, number>> {
  const { value, nowMs } = await read(redis, key);
  const demands = parseDemands(value ?? '').map(
    ({ boundMs, askedAtMs }) => [boundMs, Math.max(0, nowMs - askedAtMs)] as const,
  );
  return new Map(demands.filter(([, askedMs]) => askedMs < DEMAND_STANDS_MS));
}

/** The mark, and two instants by the clock of Redis. */
interface MarkReading {
  readonly mark: string;
  readonly nowMs: number;
  readonly expiresAtMs: number;
}

async function readMark(redis: Redis, key: string): Promise<MarkReading | undefined> {
  const { value: mark, nowMs, ttlMs } = await read(redis, key);
  return mark === null ? undefined : { mark, nowMs, expiresAtMs: nowMs + ttlMs };
}

const READ = `
-- Reads a string. KEYS: [1] its key. Returns the value, the time by this server's clock as text, in ms with a fraction, and
-- the TTL in ms.
-- Atomic, since a renewal may come between two commands. A script, since the user of a cache may run one, and no MULTI.
local time = redis.call('TIME')
return { redis.call('GET', KEYS[1]), string.format('%.3f', time[1] * 1000 + time[2] / 1000), redis.call('PTTL', KEYS[1]) }
`;

async function read(redis: Redis, key: string) {
  const [value, nowMs, ttlMs] = (await redis.eval(READ, 1, key)) as [string | null, string, number];
  return { value, nowMs: Number(nowMs), ttlMs };
}

/** The time since the last check of a relay. */
function silentMsOf({ nowMs, expiresAtMs }: MarkReading): number {
  return Math.max(0, nowMs - expiresAtMs + MARK_TTL_MS);
}

/** Whether a relay that pauses for longer than the watch may be in its pause. */
function isWithinPause(last: MarkReading | undefined, pollMs: number): boolean {
  return pollMs > WATCH_MS && last !== undefined && silentMsOf(last) < pollMs + WATCH_MS;
}

function isRenewed(first: MarkReading | undefined, last: MarkReading | undefined): boolean {
  if (last === undefined) return false;
  return first === undefined || last.expiresAtMs > first.expiresAtMs + ROUNDING_MS;
}
