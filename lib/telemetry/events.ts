import type { BypassReason, MissCause, Staleness } from '../model/outcome.js';
import type { Vector } from '../model/vector.js';

/**
 * The events of a cache, each with its emitter, its moment and its units. Counters (`statistics.ts`), logs (`log.ts`) and
 * exporters derive from these events alone.
 */
export interface CacheEvents {
  /** By the reader, once per call of `fetch`, `fetchMany` or `lookup`, when the call has its answer; not for a `peek`. */
  read: [ReadEvent];
  /** By the reader, for each entry of a call that got a stale value, after the call's `read`. */
  staleHit: [StaleHitEvent];
  /** By the loader, once per call of the user's `load`, when it has settled. */
  load: [LoadEvent];
  /**
   * By the filler, once per entry name and fill command, when the store has answered, and once per value refused
   * before.
   */
  fill: [FillEvent];
  /** Once per call of `bump` or `bumpMany`, and per namespace that a transaction bumps, when the bump has settled. */
  bump: [BumpEvent];
  /** By the lookup, for each entry (a miss) and each generation (a bypass) in the store that can't be used. */
  decodeFailure: [DecodeFailureEvent];
  /** By each part of the cache, whenever the store rejects, times out or reports a lost connection. */
  storeFailure: [StoreFailureEvent];
  /** By the verifier, once per group of sampled hits of one entry name. */
  verify: [VerifyEvent];
  /** By the verifier, for each hit that differs from the source twice, under one vector. */
  staleEntry: [StaleEntryEvent];
  /** By the lookup, for each entry that the local tier held and that a read could not use. */
  localUnverified: [LocalUnverifiedEvent];
  /** By the local tier, for each entry that it drops for want of room. */
  localEviction: [{ readonly cache: string }];
  /** By the store, when its connection becomes usable, for the first time or again; on a Redis Cluster, to each primary in use. */
  storeUp: [{ readonly cache: string }];
  /** By a breaker (`breakerFailures`), when it opens and when it closes. */
  breakerChanged: [BreakerEvent];
  /**
   * By the lookup, when a read first finds that no relay keeps the store fresh within the bound, and at each change from
   * then on. While `isFresh` is false, every read goes to the source.
   */
  freshnessChanged: [{ readonly cache: string; readonly maxStalenessMs: number; readonly isFresh: boolean }];
  /**
   * A fact that the owner should know: by the store at start-up, the cost of an eviction policy; by a bump, foreign
   * values it deleted; by the lookup, that a relay is alive and keeps other bounds than the cache's;
   * by the source, the cause of a failed load.
   */
  warning: [{ readonly cache: string; readonly message: string }];
}

/** Labels that a caller attaches to a call, to distinguish its traffic: a detector type, a tenant. Keep the values few. */
export type Attributes = Readonly<Record<string, string | number | boolean>>;

interface Labels {
  readonly cache: string;
  /** The namespaces of the entry, root first: `global`, `detector/environment`. */
  readonly namespace: string;
  readonly entry: string;
  readonly attributes?: Attributes | undefined;
}

/** `hits + absentHits + staleHits + misses + bypasses` is the number of distinct entries of the call. */
export interface ReadEvent extends Labels {
  readonly hits: number;
  readonly absentHits: number;
  /** Of `hits` and `absentHits`: those whose value the local tier had. */
  readonly localHits: number;
  /** Of `localHits`: those whose generations this process knew, without a command (`mode: 'track'`). */
  readonly trackedHits: number;
  /** Values served within a grace: beyond their TTL (`staleMs`, `staleOnErrorMs`), or in an outage (`staleOnOutageMs`). */
  readonly staleHits: number;
  readonly misses: number;
  readonly bypasses: number;
  /**
   * Queries, of `loadBatchMax` ids each, that the call alone would have run, and that a hit or a joined load saved; 0 for a
   * call that failed.
   */
  readonly queriesAvoided: number;
  /** Time from the call to its answer, in ms, with its load if it needed one. */
  readonly durationMs: number;
  /** The distinct entries that missed. */
  readonly missed: readonly {
    readonly path: string;
    readonly cause: MissCause;
    readonly bumped?: string | undefined;
  }[];
  /** Number of bypasses, by reason. */
  readonly bypassReasons: Readonly<Partial<Record<BypassReason, number>>>;
  /** The caller's stack, if the cache has `logStacks`. */
  readonly stack?: string | undefined;
}

export interface StaleHitEvent extends Labels, Staleness {
  readonly path: string;
}

export interface LoadEvent extends Labels {
  /** Number of ids that `load` got. */
  readonly ids: number;
  readonly rows: number;
  readonly durationMs: number;
  /** Always 1: a call of `load` counts as one query. */
  readonly queries: number;
  /** `read`: the load answers a call, or refreshes an entry behind an answer. `verify`: the load verifies hits. */
  readonly purpose: 'read' | 'verify';
  readonly error?: unknown;
}

/** Reason why a value of the local tier was not used. */
export type LocalUnverifiedReason =
  /** A scope was bumped. */
  | 'bumped'
  /** Its TTL was over. */
  | 'expired'
  /** The read was a miss or a bypass for this reason, as without a tier. */
  | Extract<MissCause, 'no_generation'>
  | Extract<BypassReason, 'quarantine' | 'foreign_generation' | 'not_fresh' | 'store_failure'>;

export interface LocalUnverifiedEvent extends Labels {
  readonly reason: LocalUnverifiedReason;
}

/** Reason why a loaded value was not stored. */
export type RefusalReason =
  /** A generation moved since the lookup. */
  | 'moved'
  /** The entry's key holds a value of another type. */
  | 'foreign'
  /** The load took longer than the entry's TTL. */
  | 'expired'
  /** The value would not come back identical. */
  | 'unencodable'
  /** The value is above `maxValueBytes`. */
  | 'oversized'
  /** The value does not match the entry's schema. */
  | 'schema'
  /** The store failed; a `storeFailure` event gives the error. */
  | 'store_failure'
  /** Fills failed several times in a row, and the next is tried in a while (their breaker is open). */
  | 'breaker_open';

export interface FillEvent extends Labels {
  readonly fills: number;
  readonly refused: number;
  /** Number of refused fills, by reason. */
  readonly refusalReasons: Readonly<Partial<Record<RefusalReason, number>>>;
  /** The first error of the refused fills. */
  readonly error?: Error | undefined;
}

export interface BumpEvent {
  readonly cache: string;
  /** The namespaces of the scopes, root first: `global`, `detector/environment`. undefined where no scope is known. */
  readonly namespace: string | undefined;
  /**
   * `call`: `bump` and `bumpMany`. `transaction`: scopes that a transaction recorded, bumped after its commit. `retry`: a
   * bump that failed, tried again by this process.
   */
  readonly origin: 'call' | 'transaction' | 'retry';
  /** The cause that the caller named; default `call`. */
  readonly cause: string;
  /** Number of distinct scopes of the call. */
  readonly bumps: number;
  /**
   * Number of scopes that had a generation, and have another now; the other scopes had no cached entries. undefined where
   * it is not counted, after a transaction.
   */
  readonly moved: number | undefined;
  readonly durationMs: number;
  /** Paths of the first scopes, ten at most, for logs. */
  readonly paths: readonly string[];
  readonly attributes?: Attributes | undefined;
  readonly error?: unknown;
  readonly stack?: string | undefined;
}

export interface DecodeFailureEvent extends Labels {
  readonly path: string;
  readonly reason: string;
  readonly message: string;
}

export interface StoreFailureEvent {
  readonly cache: string;
  readonly operation: 'read' | 'mint' | 'lease' | 'fill' | 'bump' | 'delete' | 'connection';
  readonly error: Error;
}

export interface BreakerEvent {
  readonly cache: string;
  /** `read`: while it is open, reads go to the source. `fill`: while it is open, loaded values are not stored. */
  readonly operation: 'read' | 'fill';
  readonly isOpen: boolean;
  /** The failure that opened it. */
  readonly error?: Error | undefined;
}

export interface VerifyEvent extends Labels {
  readonly verified: number;
  /** Hits that differed at first and agreed at the second comparison: a change was under way. */
  readonly settled: number;
  readonly stale: number;
  readonly error?: unknown;
}

export interface StaleEntryEvent extends Labels {
  readonly path: string;
  readonly vector: Vector;
  readonly cached: unknown;
  readonly loaded: unknown;
  /** Whether the entry was deleted (`verifyDeletes`): its next reader loads it. */
  readonly deleted: boolean;
}
