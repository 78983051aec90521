import { LRUCache } from 'lru-cache';
import { type Clock, monotonicClock } from '../../ports/clock.js';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import { formatGeneration, formatQuarantine, generationState, nonce, parseGeneration } from '../../model/generation.js';
import { addDemand, DEMAND_STANDS_MS } from '../../model/bound-demands.js';
import { boundOf, leaseKey } from '../../model/key.js';
import { type Claim, type FillReply, MARK_TTL_MS, repairRefused, type Store } from '../../ports/store.js';

export interface MemoryStoreOptions {
  /** Most bytes of keys and values together; the least recently used go first. Default: 64 MiB. */
  readonly maxBytes?: number;
  /** Default: monotonic time. For tests: `manualClock()`. */
  readonly clock?: Clock;
}

/** lru-cache's own memory for a key and its value, roughly, in bytes. */
const OVERHEAD_BYTES = 100;

/**
 * A store in this process's memory, with the semantics of the Redis store: TTLs, generations, atomic steps, bytes in and
 * out. For a single process, and for tests: a bump reaches no other process.
 */
export function memoryStore(options: MemoryStoreOptions = {}): Store {
  const maxBytes = options.maxBytes ?? 64 << 20;
  if (!Number.isInteger(maxBytes) || maxBytes < 1) {
    throw new ConfigurationError(
      `maxBytes must be an integer from 1, but got ${describe(maxBytes)} (memoryStore). Leave it out for 64 MiB.`,
    );
  }
  const clock = options.clock ?? monotonicClock;
  const values = new LRUCache<string, Buffer>({
    maxSize: maxBytes,
    sizeCalculation: (value, key) => key.length + value.length + OVERHEAD_BYTES,
    // lru-cache takes an instant of 0 for "has no TTL", and a clock may start at 0.
    perf: { now: () => clock.nowMs() + 1 },
    ttlResolution: 0,
  });
  const get = (key: string) => values.get(key) ?? null;
  const text = (key: string) => get(key)?.toString('latin1');
  const set = (key: string, value: Buffer | string, ttlMs: number) =>
    values.set(key, typeof value === 'string' ? Buffer.from(value) : value, { ttl: ttlMs });
  const setUntil = (key: string, value: string, untilMs: number) => {
    const ttlMs = untilMs - clock.nowMs();
    if (ttlMs > 0) set(key, value, ttlMs);
    else values.delete(key);
  };
  const bumpOne = (key: string, attempt: string, ttlMs: number) => {
    const value = text(key);
    if (value === undefined) return 'missing';
    const parsed = parseGeneration(value);
    if (parsed === undefined) {
      values.delete(key);
      return 'foreign';
    }
    const { bumps, lapsesAtMs } = parsed;
    if (lapsesAtMs === undefined) {
      const bumped = formatGeneration(bumps + 1, attempt);
      const leftMs = values.getRemainingTTL(key);
      set(key, bumped, leftMs < ttlMs / 2 ? ttlMs : leftMs);
      return bumped;
    }
    setUntil(key, formatQuarantine({ bumps: bumps + 1, lapsesAtMs }), Math.max(...lapsesAtMs.values()));
    return 'quarantined';
  };
  /** Another memory is another store, with another incarnation. */
  const incarnation = nonce();

  // Every call below ends before its first await, so each call is atomic.
  return {
    name: 'memory',
    incarnation,
    read: async (keys) => keys.map(get),
    async mint(keys, token, ttlMs) {
      return keys.map((key) => {
        const value = text(key);
        if (value !== undefined) return generationState(value);
        set(key, token, ttlMs);
        return token;
      });
    },
    bump: async (keys, attempt, ttlMs) => keys.map((key) => bumpOne(key, attempt, ttlMs)),
    async claim({ guards, entries, token, ttlMs }) {
      const stands = guards.map((guard) => text(guard.key) === guard.token);
      const claims = entries.map(({ key, guards: own, replaced }): Claim => {
        if (!own.every((guard) => stands[guard])) return 'moved';
        const bytes = get(key);
        if (bytes !== null && !(replaced && bytes.subarray(0, replaced.length).equals(replaced))) return 'filled';
        const lease = leaseKey(key);
        const holder = text(lease);
        if (holder !== undefined) return holder === FAILED ? 'leaseless' : 'held';
        if (token === undefined) return 'free';
        set(lease, token, ttlMs);
        return 'yours';
      });
      return { claims, timeMs: Math.floor(clock.nowMs()) };
    },
    async renewLeases(keys, token, ttlMs) {
      for (const lease of keys.map(leaseKey)) if (text(lease) === token) set(lease, token, ttlMs);
    },
    async failLeases(keys, token) {
      for (const lease of keys.map(leaseKey)) {
        if (text(lease) === token) set(lease, FAILED, values.getRemainingTTL(lease));
      }
    },
    async fill({ guards, entries, asOfMs, lease: token }) {
      const nowMs = clock.nowMs();
      const stands = guards.map(({ key, token, ttlMs }) => {
        const value = get(key);
        if (value === null || value.toString('latin1') !== token) return false;
        if (values.getRemainingTTL(key) < ttlMs / 2) set(key, value, ttlMs);
        return true;
      });
      const replies = entries.map((entry): FillReply => {
        const lease = leaseKey(entry.key);
        if (token !== undefined && text(lease) === token) values.delete(lease);
        if (!entry.guards.every((guard) => stands[guard])) return 'moved';
        const leftMs = entry.ttlMs + Math.min(0, asOfMs - nowMs);
        if (leftMs <= 0) return 'expired';
        set(entry.key, entry.bytes, leftMs);
        return values.has(entry.key) ? 'filled' : 'oversized';
      });
      return { replies, timeMs: Math.floor(nowMs) };
    },
    delete: async (keys) => keys.filter((key) => values.delete(key)).length,
    async quarantine(keys, token, ttlMs) {
      const nowMs = clock.nowMs();
      const found = keys.map((key) => {
        const value = text(key);
        const parsed = value === undefined ? undefined : parseGeneration(value);
        return { bumps: parsed?.bumps ?? 0, lapsesAtMs: parsed?.lapsesAtMs ?? NO_TOKENS };
      });
      let held = 0;
      found.forEach(({ bumps, lapsesAtMs }, i) => {
        const tokens = new Map([...lapsesAtMs].filter(([, instant]) => instant > nowMs));
        if (tokens.has(token)) held++;
        tokens.set(token, Math.floor(nowMs) + ttlMs);
        setUntil(keys[i]!, formatQuarantine({ bumps, lapsesAtMs: tokens }), Math.max(...tokens.values()));
      });
      return held;
    },
    async lift(keys, token, attempt, ttlMs) {
      const nowMs = clock.nowMs();
      return keys.map((key) => {
        const parsed = parseGeneration(text(key) ?? '');
        if (parsed?.lapsesAtMs === undefined) {
          bumpOne(key, attempt, ttlMs);
          return 'lapsed';
        }
        const { bumps, lapsesAtMs } = parsed;
        const tokens = new Map([...lapsesAtMs].filter(([, instant]) => instant > nowMs));
        const kept = tokens.delete(token);
        if (tokens.size === 0) set(key, formatGeneration(bumps + 1, attempt), ttlMs);
        else setUntil(key, formatQuarantine({ bumps, lapsesAtMs: tokens }), Math.max(...tokens.values()));
        return kept ? 'kept' : 'lapsed';
      });
    },
    timeMs: async () => Math.floor(clock.nowMs()),
    async renew(renewal) {
      if (renewal.incarnation !== incarnation) return 'other_server';
      if (text(renewal.markKey) !== renewal.mark) return 'unmarked';
      set(renewal.markKey, renewal.mark, MARK_TTL_MS);
      const nowMs = clock.nowMs();
      if (nowMs < renewal.asOfMs) return 'renewed';
      for (const { key, untilMs } of renewal.keys) {
        if (untilMs <= nowMs || untilMs > nowMs + boundOf(key)) continue;
        const own = text(key)?.startsWith(`${incarnation} `) ?? false;
        const expiresAtMs = nowMs + (own ? values.getRemainingTTL(key) : 0);
        if (untilMs <= expiresAtMs && expiresAtMs <= nowMs + boundOf(key)) continue;
        setUntil(key, `${incarnation} ${renewal.nonce}`, untilMs);
      }
      return 'renewed';
    },
    async repair(repair) {
      if (repair.incarnation !== incarnation) throw repairRefused(repair.incarnation);
      bumpOne(repair.globalKey, repair.attempt, repair.ttlMs);
      set(repair.markKey, repair.mark, MARK_TTL_MS);
    },
    async demand({ demandsKey, markKey, boundMs }) {
      const nowMs = Math.floor(clock.nowMs());
      set(demandsKey, addDemand(text(demandsKey) ?? '', { boundMs, askedAtMs: nowMs }), DEMAND_STANDS_MS);
      if (!values.has(markKey)) return undefined;
      return Math.round(clock.nowMs() + values.getRemainingTTL(markKey)) - MARK_TTL_MS;
    },
    freshness: async (key) => ({ value: get(key), ttlMs: values.getRemainingTTL(key) }),
    readMark: async (key) => text(key) ?? null,
    close: async () => {},
  };
}

/** The value of a lease whose holder's load failed. */
const FAILED = '!failed';
const NO_TOKENS: ReadonlyMap<string, number> = new Map();
