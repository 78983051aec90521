import { flag, fraction, wholeNumber } from './errors/option-checks.js';
import { checkBound } from './model/staleness-bound.js';
import { checkCacheName } from './model/cache-name.js';
import { describe } from './errors/describe.js';
import { ConfigurationError } from './errors/errors.js';
import { EARLY_REFRESH_MAX } from './model/entry-definition.js';
import type { Logger } from './telemetry/log.js';
import { checkTtl, TTL_MAX_MS } from './model/ttl.js';

/** The settings of a cache. The README's table gives the unit and the reason of every default. */
export interface CacheSettings {
  /** A part of every key and every event. Two caches of one name share their entries. */
  readonly name: string;
  /** A part of every entry's key. Raise it when values change shape, so that concurrent releases never read each other's entries. */
  readonly schemaVersion?: number;
  /** Default TTL of an entry, in ms. */
  readonly ttlMs?: number;
  /** Largest share of a TTL, 0 to 1, by which it is shortened at random. */
  readonly ttlJitter?: number;
  /** Time limit of a lookup, in ms, for each chunk of a batch; a later read goes to the source. */
  readonly readDeadlineMs?: number;
  /** Time limit of each bump command, in ms; a bump that the store has not confirmed by then rejects. */
  readonly bumpDeadlineMs?: number;
  /** Time limit of each fill command, in ms; a fill that the store has not confirmed by then counts as refused. */
  readonly fillDeadlineMs?: number;
  /**
   * Failures of the store in a row, of reads or of fills, that open their breaker: until the store answers again, reads
   * go to the source at once, and loaded values are not stored. 0: no breaker.
   */
  readonly breakerFailures?: number;
  /** Time between two attempts of an open breaker to use the store, in ms; jitter shortens it by up to a half. */
  readonly breakerRetryMs?: number;
  /** Longest time that `close()` waits for work under way, in ms. */
  readonly closeDeadlineMs?: number;
  /** Most ids of one call of a loader. */
  readonly loadBatchMax?: number;
  /** Most loads of this cache at once: calls of loaders that have not settled. */
  readonly loadsMax?: number;
  /** Most entries that wait for their load to begin; further ones reject at once with SourceOverloadError. */
  readonly loadQueueMax?: number;
  /** Longest time that an entry waits for its load to begin, in ms; then it rejects with SourceOverloadError. */
  readonly loadQueueTimeoutMs?: number;
  /** Time after which readers that came later no longer wait for a load of their entry, and begin one, in ms. */
  readonly loadSoftTimeoutMs?: number;
  /** Time after which a load is told to stop and its callers reject with LoadTimeoutError, in ms. 0: no limit. */
  readonly loadHardTimeoutMs?: number;
  /** Whether one process loads an entry while the others wait for it. */
  readonly leases?: boolean;
  /** How long the others wait for a process that died while it loaded, in ms; a live one renews its lease. */
  readonly leaseTtlMs?: number;
  /** How long beyond its TTL a value is served at once, while one process loads it anew, in ms. */
  readonly staleMs?: number;
  /** How long beyond its TTL a value is served if its load fails, or takes longer than `loadSoftTimeoutMs`, in ms. */
  readonly staleOnErrorMs?: number;
  /** How early a hit may load an entry anew, by the duration of its load: 1 is the optimum of XFetch; 0: never. */
  readonly earlyRefresh?: number;
  /** Most bytes of one encoded value; a larger value is returned and not stored. */
  readonly maxValueBytes?: number;
  /** Most scopes whose generation this process remembers; about 1 kB each. */
  readonly rememberedScopesMax?: number;
  /**
   * The bound: highest age of a value that a read returns, in ms. Readers use the store only while a relay keeps it fresh
   * within this bound, and otherwise the source. Default: no bound.
   */
  readonly maxStalenessMs?: number;
  /**
   * The local tier: decoded values in this process. `verify`: each read asks the store for the generations alone, as
   * exact as without the tier, and no value is sent or decoded. Readers share its values, so they are read-only: plain
   * objects and arrays are frozen (a change throws a TypeError in strict mode); a Date, a Map, a Set or bytes, and what
   * holds them, are copies. `track`: no command at all while Redis tells which generations change, and `entry.peek` without a
   * promise; a value may be older than the ladder promises by the way of a push, and by `heartbeatMs` if pushes are lost.
   * `staleOnOutageMs`: what it serves while the store gives no answer. Default: no local tier.
   */
  readonly local?: LocalOptions;
  /** The share of hits, 0 to 1, that is compared with the source after the answer. */
  readonly verifyRate?: number;
  /** Time between the two comparisons of a differing hit, in ms, in which its bump may arrive. Default: `maxStalenessMs`, or 1 s without a bound. */
  readonly verifyDelayMs?: number;
  /** Whether a stale entry that `verifyRate` confirmed is deleted. */
  readonly verifyDeletes?: boolean;
  /** Logger for misses and bumps (debug), failures (warn) and stale entries (error). */
  readonly log?: Logger;
  /** Whether log lines and events of misses and bumps carry the caller's stack: about 10 µs a call. */
  readonly logStacks?: boolean;
}

/** The local tier, bounded by its entries, its bytes or both; the least recently used go first. */
export type LocalOptions = {
  /**
   * How long after a value was last known to stand it is served, marked as stale, while the store gives no answer, in ms.
   * Bumps of other processes, and strict commits, are unseen meanwhile. Default: 0, so that such reads go to the source.
   */
  readonly staleOnOutageMs?: number;
} & (
  | { readonly mode: 'verify' | 'track'; readonly heartbeatMs?: undefined }
  | {
      readonly mode: 'track';
      /** The longest time for which lost pushes go unnoticed, in ms. Default: 1,000; a quarter of it is the time between two beats. */
      readonly heartbeatMs: number;
    }
) &
  (
    | { readonly maxEntries: number; readonly maxBytes?: number }
    | { readonly maxEntries?: number; readonly maxBytes: number }
  );

export type CheckedOptions = Required<Omit<CacheSettings, 'local' | 'log' | 'maxStalenessMs'>> & {
  /** undefined for a cache without a local tier. */
  readonly local: LocalOptions | undefined;
  readonly log: Logger | undefined;
  /** undefined for a cache without a bound. */
  readonly maxStalenessMs: number | undefined;
};

/** All options: a misspelt option would have no effect, so `checkOptions` rejects every other name. */
const OPTIONS: ReadonlySet<string> = new Set<keyof CacheSettings | 'store' | 'source' | 'clock'>([
  ...(['name', 'store', 'source', 'clock', 'schemaVersion', 'ttlMs', 'ttlJitter', 'readDeadlineMs'] as const),
  ...(['breakerFailures', 'breakerRetryMs', 'loadsMax', 'loadQueueMax', 'loadQueueTimeoutMs'] as const),
  ...(['loadSoftTimeoutMs', 'loadHardTimeoutMs', 'leases', 'leaseTtlMs'] as const),
  ...(['staleMs', 'staleOnErrorMs', 'earlyRefresh'] as const),
  ...(['bumpDeadlineMs', 'fillDeadlineMs', 'closeDeadlineMs', 'loadBatchMax', 'maxValueBytes'] as const),
  ...([
    'rememberedScopesMax',
    'maxStalenessMs',
    'local',
    'verifyRate',
    'verifyDelayMs',
    'verifyDeletes',
    'log',
    'logStacks',
  ] as const),
]);

/** Checks settings and adds the defaults. Throws ConfigurationError for an unknown option or a value out of range. */
export function checkOptions(settings: CacheSettings): CheckedOptions {
  const name = checkCacheName(settings?.name);
  const unknown = Object.keys(settings).find((option) => !OPTIONS.has(option));
  if (unknown !== undefined) {
    throw new ConfigurationError(
      `The options of a cache must be among ${[...OPTIONS].join(', ')}, but got "${unknown}" (cache "${name}"). ` +
        'Correct the name, or leave the option out.',
    );
  }
  const { maxStalenessMs } = settings;
  if (maxStalenessMs !== undefined) checkBound(maxStalenessMs);
  return {
    name,
    schemaVersion: wholeNumber('schemaVersion', settings.schemaVersion ?? 1, 0, Number.MAX_SAFE_INTEGER),
    ttlMs: checkTtl(settings.ttlMs ?? 60_000, `cache "${name}"`),
    ttlJitter: fraction('ttlJitter', settings.ttlJitter ?? 0.1, 1),
    readDeadlineMs: wholeNumber('readDeadlineMs', settings.readDeadlineMs ?? 100, 1, 60_000),
    bumpDeadlineMs: wholeNumber('bumpDeadlineMs', settings.bumpDeadlineMs ?? 1_000, 1, 60_000),
    fillDeadlineMs: wholeNumber('fillDeadlineMs', settings.fillDeadlineMs ?? 1_000, 1, 60_000),
    breakerFailures: wholeNumber('breakerFailures', settings.breakerFailures ?? 3, 0, 1_000_000),
    breakerRetryMs: wholeNumber('breakerRetryMs', settings.breakerRetryMs ?? 1_000, 1, 3_600_000),
    closeDeadlineMs: wholeNumber('closeDeadlineMs', settings.closeDeadlineMs ?? 10_000, 1, 3_600_000),
    loadBatchMax: wholeNumber('loadBatchMax', settings.loadBatchMax ?? 1_000, 1, 1_000_000),
    loadsMax: wholeNumber('loadsMax', settings.loadsMax ?? 10, 1, 1_000_000),
    loadQueueMax: wholeNumber('loadQueueMax', settings.loadQueueMax ?? 10_000, 0, 10_000_000),
    loadQueueTimeoutMs: wholeNumber('loadQueueTimeoutMs', settings.loadQueueTimeoutMs ?? 5_000, 1, 3_600_000),
    loadSoftTimeoutMs: wholeNumber('loadSoftTimeoutMs', settings.loadSoftTimeoutMs ?? 1_000, 1, 3_600_000),
    loadHardTimeoutMs: wholeNumber('loadHardTimeoutMs', settings.loadHardTimeoutMs ?? 0, 0, 3_600_000),
    leases: flag('leases', settings.leases ?? true),
    leaseTtlMs: wholeNumber('leaseTtlMs', settings.leaseTtlMs ?? 1_000, 100, 60_000),
    staleMs: wholeNumber('staleMs', settings.staleMs ?? 0, 0, TTL_MAX_MS),
    staleOnErrorMs: wholeNumber('staleOnErrorMs', settings.staleOnErrorMs ?? 0, 0, TTL_MAX_MS),
    earlyRefresh: fraction('earlyRefresh', settings.earlyRefresh ?? 0, EARLY_REFRESH_MAX),
    maxValueBytes: wholeNumber('maxValueBytes', settings.maxValueBytes ?? 1 << 20, 1, 512 << 20),
    rememberedScopesMax: wholeNumber('rememberedScopesMax', settings.rememberedScopesMax ?? 50_000, 1, 10_000_000),
    maxStalenessMs,
    local: checkLocal(settings.local),
    verifyRate: fraction('verifyRate', settings.verifyRate ?? 0, 1),
    verifyDelayMs: wholeNumber('verifyDelayMs', settings.verifyDelayMs ?? maxStalenessMs ?? 1_000, 0, 3_600_000),
    verifyDeletes: flag('verifyDeletes', settings.verifyDeletes ?? true),
    log: settings.log,
    logStacks: flag('logStacks', settings.logStacks ?? false),
  };
}

const LOCAL_OPTIONS: ReadonlySet<string> = new Set(['mode', 'maxEntries', 'maxBytes', 'staleOnOutageMs']);

function checkLocal(local: LocalOptions | undefined): LocalOptions | undefined {
  if (local === undefined) return undefined;
  const { mode, maxEntries, maxBytes, heartbeatMs, staleOnOutageMs } = (local ?? {}) as {
    readonly mode?: string;
    readonly maxEntries?: number;
    readonly maxBytes?: number;
    readonly heartbeatMs?: number;
    readonly staleOnOutageMs?: number;
  };
  const isTracking = mode === 'track';
  const unknown = Object.keys(local ?? {}).find(
    (option) => !LOCAL_OPTIONS.has(option) && !(option === 'heartbeatMs' && (isTracking || heartbeatMs === undefined)),
  );
  if ((mode !== 'verify' && !isTracking) || unknown !== undefined || (maxEntries ?? maxBytes) === undefined) {
    throw new ConfigurationError(
      `local must be { mode: 'verify' } or { mode: 'track' } with maxEntries, maxBytes or both, with staleOnOutageMs, and with ` +
        `heartbeatMs for 'track' alone, but got ${describe(local)}. ` +
        "Leave it out for no local tier, or set { mode: 'verify', maxEntries: 10_000 }.",
    );
  }
  if (heartbeatMs !== undefined) wholeNumber('heartbeatMs of local', heartbeatMs, 100, 60_000, '1_000');
  if (maxEntries !== undefined) wholeNumber('maxEntries of local', maxEntries, 1, 10_000_000, 'no limit of entries');
  if (maxBytes !== undefined)
    wholeNumber('maxBytes of local', maxBytes, 1, Number.MAX_SAFE_INTEGER, 'no limit of bytes');
  if (staleOnOutageMs !== undefined) wholeNumber('staleOnOutageMs of local', staleOnOutageMs, 0, TTL_MAX_MS, '0');
  return local;
}
