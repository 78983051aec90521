import type { Knex } from 'knex';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import { wholeNumber } from '../../errors/option-checks.js';
import { checkCacheName } from '../../model/cache-name.js';
import { checkBound } from '../../model/staleness-bound.js';
import { Partitions } from '../../ports/partitions.js';
import type { PartitionedStore, Store } from '../../ports/store.js';
import type { Logger } from '../../telemetry/log.js';
import { type OutboxOptions, qualifier } from '../outbox/location.js';
import type { RelayContext } from './relay-context.js';

export interface RelayOptions extends OutboxOptions {
  /** The cache whose events to relay; those of other caches are left alone. */
  readonly cache: string;
  /** The primary of the database with the outbox. Give the relay a pool of its own where the application's may be busy. */
  readonly db: Knex;
  /**
   * The store to bump: `redisStore(redis)`, made for this relay, which closes it. Of a Redis Cluster, one with the same
   * number of partitions as the cache has.
   */
  readonly store: Store | PartitionedStore;
  /** The bounds to guarantee: each `maxStalenessMs` that a cache of this name has, in ms. */
  readonly maxStalenessMs?: number | readonly number[];
  /** Pause when there was nothing to do, in ms. Default: 50. */
  readonly pollMs?: number;
  /** Events in one transaction, about. Default: 1,000. */
  readonly batchMax?: number;
  /** Time limit of a command of the store, in ms. Default: 1,000. */
  readonly bumpDeadlineMs?: number;
  /**
   * After this time PostgreSQL ends the session of a relay that was stopped or cut off with a claim, and other relays take
   * its events over, in ms. Default: 10,000, and five times `bumpDeadlineMs` at least.
   */
  readonly silenceMaxMs?: number;
  /**
   * A relay that was away for longer than this time, and finds an event older than it, bumps everything once before it
   * relays, in ms; 0 for never. Default: 30,000.
   */
  readonly backlogMaxMs?: number;
  /** Time for which `stop()` waits for claimed events, in ms. Default: 5,000. */
  readonly stopDeadlineMs?: number;
  /**
   * Whether the host ensures that a primary of PostgreSQL that was succeeded takes no more queries (fencing). A relay that
   * PostgreSQL does not tell its system and timeline guarantees bounds only then. Default: false.
   */
  readonly fenced?: boolean;
  /** Whether to listen for the NOTIFY that `notifyRelays` makes triggers send: a hint that ends a pause. Default: false. */
  readonly listen?: boolean;
  readonly log?: Logger;
}

/** The options with their defaults, checked. */
export interface RelaySettings extends Omit<RelayContext, 'onForeign' | 'trust'> {
  readonly store: Store | PartitionedStore;
  readonly bounds: readonly number[];
  readonly pollMs: number;
  readonly batchMax: number;
  readonly backlogMaxMs: number;
  readonly stopDeadlineMs: number;
  readonly listen: boolean;
  readonly fenced: boolean;
  /** As in `PartitionsTrust`. */
  readonly stragglerMs: number;
}

const SILENCE_MAX_MS = 10_000;
/** Longer than a restart of a lone relay, and shorter than the default TTL, past which no entry is that old. */
const BACKLOG_MAX_MS = 30_000;
/** The time, in ms, by which a primary of a Redis Cluster may be slower than another one before the others go on. */
const STRAGGLER_MS = 100;
/** A check waits for stragglers twice or three times, and bounds of the others must not lapse meanwhile. */
const STRAGGLERS_PER_BOUND = 16;
const OPTION_MAX_MS = 3_600_000;

/** Throws ConfigurationError. */
export function relaySettings({ schema, maxStalenessMs = [], ...options }: RelayOptions): RelaySettings {
  const settings: Omit<RelaySettings, 'partitions' | 'stragglerMs'> = {
    ...{ pollMs: 50, batchMax: 1_000, bumpDeadlineMs: 1_000, stopDeadlineMs: 5_000, listen: false, fenced: false },
    backlogMaxMs: BACKLOG_MAX_MS,
    silenceMaxMs: Math.max(SILENCE_MAX_MS, 5 * (options.bumpDeadlineMs ?? 0)),
    ...options,
    outbox: schema === undefined ? {} : { schema },
    bounds: [maxStalenessMs].flat().map(checkBound),
  };
  const { cache, db, store, outbox } = settings;
  checkCacheName(cache);
  qualifier(outbox); // throws
  if (typeof db?.raw !== 'function' || !isStore(store)) {
    throw new ConfigurationError(
      'A relay must have a Knex as `db` and a store as `store`, but got ' +
        `${describe({ db: typeof db, store: typeof store })} (cache ${describe(cache)}). See the example of startRelay.`,
    );
  }
  for (const [option, least] of [
    ['pollMs', 1],
    ['batchMax', 1],
    ['bumpDeadlineMs', 1],
    ['silenceMaxMs', 1],
    ['backlogMaxMs', 0],
    ['stopDeadlineMs', 0],
  ] as const) {
    wholeNumber(option, settings[option], least, OPTION_MAX_MS);
  }
  const stragglerMs = Math.min(STRAGGLER_MS, ...settings.bounds.map((boundMs) => boundMs / STRAGGLERS_PER_BOUND));
  return { ...settings, stragglerMs, partitions: new Partitions(store, cache) };
}

function isStore(store: Partial<Store & PartitionedStore> | undefined): boolean {
  return typeof store?.bump === 'function' || typeof store?.partition === 'function';
}
