import type { BypassReason, MissCause } from '../model/outcome.js';
import type { Vector } from '../model/vector.js';

/**
 * Everything a cache tells about itself. Each event says who emits it, when, and in what unit; counters
 * (`statistics.ts`) and logs (`log.ts`) are made of these and nothing else, and so are exporters.
 */
export interface CacheEvents {
  /** By the reader, once per call of `fetch`, `fetchMany` or `lookup`, when it is answered. */
  read: [ReadEvent];
  /** By the loader, once per call of the user's `load`, when it has settled. */
  load: [LoadEvent];
  /** By the filler, once per entry name and fill command, when the store has answered. */
  fill: [FillEvent];
  /** By the bumper, once per call of `bump` or `bumpMany`, when it has settled. */
  bump: [BumpEvent];
  /** By the lookup, for each entry in the store that can't be used (a miss), or generation (a bypass). */
  decodeFailure: [DecodeFailureEvent];
  /** Whenever the store rejects, times out, or tells of a lost connection. */
  storeFailure: [StoreFailureEvent];
  /** By the verifier, once per sample of hits. */
  verify: [VerifyEvent];
  /** By the verifier: a hit that differs from the source twice, under one vector. */
  staleEntry: [StaleEntryEvent];
  /** By the store: its connection is usable, for the first time or again. */
  storeUp: [{ readonly cache: string }];
  /**
   * By the lookup, when a read finds first that no relay vouches for the bound, and of each change from then on: until it
   * is vouched for, everything is read from the source.
   */
  freshnessChanged: [{ readonly cache: string; readonly maxStalenessMs: number; readonly isFresh: boolean }];
  /** Something the owner should know once, at start-up: what an eviction policy costs. */
  warning: [{ readonly cache: string; readonly message: string }];
}

/** What a caller attaches to a call, to tell its traffic apart: a detector type, a tenant. Keep it low in number. */
export type Attributes = Readonly<Record<string, string | number | boolean>>;

interface Labels {
  readonly cache: string;
  readonly entry: string;
  readonly attributes?: Attributes | undefined;
}

/** `hits + absentHits + staleHits + misses + bypasses` is the number of distinct entries of the call. */
export interface ReadEvent extends Labels {
  readonly hits: number;
  readonly absentHits: number;
  /** Hits served beyond their time within a grace that the owner set. None until a cache offers such a grace. */
  readonly staleHits: number;
  readonly misses: number;
  readonly bypasses: number;
  /** Queries the call would have run by itself, `loadBatchMax` ids each, and did not: it hit, or joined a load. */
  readonly queriesAvoided: number;
  /** The distinct entries that missed. */
  readonly missed: readonly {
    readonly path: string;
    readonly cause: MissCause;
    readonly bumped?: string | undefined;
  }[];
  readonly bypassReason?: BypassReason | undefined;
  /** Where the call came from, if the cache was asked for stacks. */
  readonly stack?: string | undefined;
}

export interface LoadEvent extends Labels {
  /** How many ids it was asked for. */
  readonly ids: number;
  readonly rows: number;
  readonly durationMs: number;
  /** One: a call of `load` counts as one query. */
  readonly queries: number;
  /** Loaded to answer a call, or to verify hits. */
  readonly purpose: 'read' | 'verify';
  readonly error?: unknown;
}

/** Why a loaded value was not stored. */
export type RefusalReason =
  /** A generation moved since the lookup. */
  | 'moved'
  /** Something of another type stands at the entry's key. */
  | 'foreign'
  /** The load took longer than the entry's TTL. */
  | 'expired'
  /** The value would not come back identical. */
  | 'unencodable'
  /** The value is above `maxValueBytes`. */
  | 'oversized'
  /** The value does not match the entry's schema. */
  | 'schema'
  /** The store failed; a `storeFailure` says how. */
  | 'store_failure';

export interface FillEvent extends Labels {
  readonly fills: number;
  readonly refused: number;
  /** Of the refused ones, if any; one command refuses for one reason, or the first. */
  readonly reason?: RefusalReason | undefined;
  readonly error?: Error | undefined;
}

export interface BumpEvent {
  readonly cache: string;
  /** The namespace: `global`, `detector`. */
  readonly level: string;
  /** What the caller named, or `call`. */
  readonly cause: string;
  /** Distinct scopes asked for. */
  readonly bumps: number;
  /** Scopes that had a generation, and have another now; the others nobody had cached. */
  readonly moved: number;
  readonly durationMs: number;
  /** The first scopes, ten at most, for logs. */
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
  readonly operation: 'read' | 'mint' | 'fill' | 'bump' | 'delete' | 'connection';
  readonly error: Error;
}

export interface VerifyEvent extends Labels {
  readonly verified: number;
  /** Hits that differed at first and were settled by the second look: a change was under way. */
  readonly settled: number;
  readonly stale: number;
  readonly error?: unknown;
}

export interface StaleEntryEvent extends Labels {
  readonly path: string;
  readonly vector: Vector;
  readonly cached: unknown;
  readonly loaded: unknown;
}
