import { share, wholeNumber } from './errors/option-checks.js';
import { checkBound } from './model/staleness-bound.js';
import { checkCacheName } from './model/cache-name.js';
import { ConfigurationError } from './errors/errors.js';
import type { Logger } from './telemetry/log.js';
import { checkTtl } from './model/ttl.js';

/** What an owner can set. Every default has its unit and its reason in the README's table. */
export interface CacheSettings {
  /** In every key, and in every event: two caches of one name share what they store. */
  readonly name: string;
  /** In every entry's key: raise it when values change shape, so that releases side by side don't read each other's. */
  readonly schemaVersion?: number;
  /** An entry's TTL where it declares none, in ms. */
  readonly ttlMs?: number;
  /** By what share, 0 to 1, a TTL is shortened at most, at random. */
  readonly ttlJitter?: number;
  /** A read that the store has not answered by then goes to the source, in ms; per command of a batch's chunk. */
  readonly readDeadlineMs?: number;
  /** A bump that the store has not confirmed by then rejects, in ms. */
  readonly bumpDeadlineMs?: number;
  /** A fill that the store has not confirmed by then is given up, in ms. */
  readonly fillDeadlineMs?: number;
  /** How long `close()` waits for what is under way, in ms. */
  readonly closeDeadlineMs?: number;
  /** Ids in one call of a loader, at most. */
  readonly loadBatchMax?: number;
  /** Bytes of one encoded value, at most; a larger one is returned and not stored. */
  readonly maxValueBytes?: number;
  /** Scopes whose generation this process remembers, at most; about 1 kB each. */
  readonly rememberedScopesMax?: number;
  /**
   * How old at most, in ms, what is read may be, relay or no relay: readers use the store only while a relay vouches
   * for that. Without it, nobody asks.
   */
  readonly maxStalenessMs?: number;
  /** The share of hits, 0 to 1, that is compared with the source behind the answer. */
  readonly verifyRate?: number;
  /** How long a change may be under way before a difference counts as stale, in ms. Default: the bound, if there is one. */
  readonly verifyDelayMs?: number;
  /** Where misses and bumps (debug), failures (warn) and stale entries (error) are written. */
  readonly log?: Logger;
  /** Whether log lines and events of misses and bumps carry the caller's stack: about 10 µs a call. */
  readonly logStacks?: boolean;
}

export type CheckedOptions = Required<Omit<CacheSettings, 'log' | 'maxStalenessMs'>> & {
  readonly log: Logger | undefined;
  /** undefined: no bound. */
  readonly maxStalenessMs: number | undefined;
};

/** All there are: one that is misspelt would leave its owner without what it promises. */
const OPTIONS: ReadonlySet<string> = new Set<keyof CacheSettings | 'store' | 'source' | 'clock'>([
  ...(['name', 'store', 'source', 'clock', 'schemaVersion', 'ttlMs', 'ttlJitter', 'readDeadlineMs'] as const),
  ...(['bumpDeadlineMs', 'fillDeadlineMs', 'closeDeadlineMs', 'loadBatchMax', 'maxValueBytes'] as const),
  ...(['rememberedScopesMax', 'maxStalenessMs', 'verifyRate', 'verifyDelayMs', 'log', 'logStacks'] as const),
]);

/** Fills in the defaults. Throws ConfigurationError for what can't work. */
export function checkOptions(settings: CacheSettings): CheckedOptions {
  const name = checkCacheName(settings?.name);
  const unknown = Object.keys(settings).find((option) => !OPTIONS.has(option));
  if (unknown !== undefined) {
    throw new ConfigurationError(
      `A cache has the options ${[...OPTIONS].join(', ')}. Got "${unknown}", which would be ignored. Correct it, or leave it out.`,
    );
  }
  const { maxStalenessMs } = settings;
  if (maxStalenessMs !== undefined) checkBound(maxStalenessMs);
  return {
    name,
    schemaVersion: wholeNumber('schemaVersion', settings.schemaVersion ?? 1, 0, Number.MAX_SAFE_INTEGER),
    ttlMs: checkTtl(settings.ttlMs ?? 60_000, `cache "${name}"`),
    ttlJitter: share('ttlJitter', settings.ttlJitter ?? 0.1),
    readDeadlineMs: wholeNumber('readDeadlineMs', settings.readDeadlineMs ?? 100, 1, 60_000),
    bumpDeadlineMs: wholeNumber('bumpDeadlineMs', settings.bumpDeadlineMs ?? 1_000, 1, 60_000),
    fillDeadlineMs: wholeNumber('fillDeadlineMs', settings.fillDeadlineMs ?? 1_000, 1, 60_000),
    closeDeadlineMs: wholeNumber('closeDeadlineMs', settings.closeDeadlineMs ?? 10_000, 1, 3_600_000),
    loadBatchMax: wholeNumber('loadBatchMax', settings.loadBatchMax ?? 1_000, 1, 1_000_000),
    maxValueBytes: wholeNumber('maxValueBytes', settings.maxValueBytes ?? 1 << 20, 1, 512 << 20),
    rememberedScopesMax: wholeNumber('rememberedScopesMax', settings.rememberedScopesMax ?? 50_000, 1, 10_000_000),
    maxStalenessMs,
    verifyRate: share('verifyRate', settings.verifyRate ?? 0),
    verifyDelayMs: wholeNumber('verifyDelayMs', settings.verifyDelayMs ?? maxStalenessMs ?? 1_000, 0, 3_600_000),
    log: settings.log,
    logStacks: settings.logStacks ?? false,
  };
}
