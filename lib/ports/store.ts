import type { Deadline } from '../async/deadline.js';
import type { Moment } from '../async/moment.js';
import { GencacheError } from '../errors/errors.js';
import type { Generation } from '../model/generation.js';
import type { DemandsKey, EntryKey, FreshnessKey, GenerationKey, MarkKey } from '../model/key.js';

/**
 * The port that every store of one partition implements: bytes under keys that expire, read and written in atomic steps.
 *
 * One contract suite runs on each implementation. A store knows the form of a generation's value, so that it can bump
 * one in place; namespaces, loaders and the contents of entries are unknown to it. Every call takes the caller's deadline:
 * a store that is not ready yet waits within the deadline, and then rejects with `StoreUnavailableError` or
 * `DeadlineError`. `read`, `mint` and `fill` wait for a store that starts, and reject at once while it is known to be
 * down, since their callers have the source to go to. So do `claim`, `renewLeases` and `failLeases`.
 */
export interface Store extends StorePartition, StoreLifecycle {
  /** True for a store that never holds anything: every lookup is a bypass, every bump a no-op. For tests and emergencies. */
  readonly bypassed?: boolean;
}

/**
 * A store that splits a cache into partitions, which may lie on different servers: a Redis Cluster. A command has keys of
 * one partition only; nothing is atomic across partitions (docs/protocol.md, rule 25).
 */
export interface PartitionedStore extends StoreLifecycle {
  /** Number of partitions of a cache on this store, from 1. It stands in the cache's keys if there are several. */
  readonly partitions: number;

  /** Numbers of partitions that other processes may have, where no registry tells: bumps reach these, too. */
  readonly alsoPartitions?: readonly number[];

  /** Addresses of the servers that have a partition and can't be reached, for people. */
  readonly unreachable: readonly string[];

  /** Returns the partition whose keys have this prefix. */
  partition(prefix: string): StorePartition;
}

export interface StoreLifecycle {
  /** For logs: `redis`, `memory`. */
  readonly name: string;

  /** Reports events outside calls: connections lost and found, warnings at start-up. At most one listener. */
  listen?(listener: StoreListener): void;

  /** Closes the connections that the store opened itself. */
  close(): Promise<void>;
}

/** The calls of a store whose keys all lie in one partition. */
export interface StorePartition {
  /**
   * Identity of the store's present history: changes whenever the store may have gone back in time (a restart, a
   * failover). One word; for Redis `<run_id>.<master_replid>`, by the last INFO on the connection in use.
   * undefined while not connected, or where INFO is forbidden.
   */
  readonly incarnation: string | undefined;

  /**
   * Stands for the server that has this partition at the moment, compared by identity; undefined while none is known, and
   * for a store on one server.
   */
  readonly server?: object | undefined;

  /**
   * Checks the store's incarnation again, soon, at a limited rate, and updates `incarnation`. For a caller with reason to
   * think that it changed. `renew` and `repair` call it themselves when they meet another server.
   */
  revalidate?(): void;

  /** `keys: [n] -> [n]`, null for a missing key and for a key of another type. Atomic. One command. */
  read(
    keys: readonly (GenerationKey | EntryKey | FreshnessKey)[],
    deadline: Deadline,
  ): Promise<readonly (Buffer | null)[]>;

  /**
   * Gives each missing generation `token`, with this TTL: `keys: [n] -> [n]`, the generations that now stand,
   * `quarantined` for a key with writers' tokens, `foreign` for any other value. Atomic. One command.
   */
  mint(
    keys: readonly GenerationKey[],
    token: Generation,
    ttlMs: number,
    deadline: Deadline,
  ): Promise<readonly (Generation | 'quarantined' | 'foreign')[]>;

  /**
   * Gives each existing generation a value never used before, made with the fresh nonce `attempt`. `keys: [n] -> [n]`:
   * the new generation; `missing` for a missing key, which stays missing; `quarantined` for a key with writers' tokens,
   * which stay until their instants, so that readers keep bypassing it; `foreign` for any other value, of
   * any type, which is deleted: a release that knows its form would hit under it.
   * A TTL with less than half of `ttlMs` left becomes `ttlMs`, as by a fill; 0 leaves the TTL to fills.
   * Atomic. One command.
   */
  bump(
    keys: readonly GenerationKey[],
    attempt: string,
    ttlMs: number,
    deadline: Deadline,
  ): Promise<readonly (Generation | 'missing' | 'quarantined' | 'foreign')[]>;

  /**
   * Takes the lease of each entry that is to be loaded: `entries: [n] -> claims: [n]`. One step looks at the guards, the
   * entry and its lease, so that a caller that missed before another one filled takes no lease. Atomic. One command
   * (callers chunk at 1,000).
   */
  claim(batch: ClaimBatch, deadline: Deadline): Promise<Claimed>;

  /** Extends the leases of these entries that still have this token to `ttlMs` from now. Atomic. One command. */
  renewLeases(keys: readonly EntryKey[], token: string, ttlMs: number, deadline: Deadline): Promise<void>;

  /**
   * Marks the leases of these entries that still have this token as failed, for the rest of their TTL: a claim answers
   * `leaseless` meanwhile. Atomic. One command.
   */
  failLeases(keys: readonly EntryKey[], token: string, deadline: Deadline): Promise<void>;

  /**
   * Stores each entry unless one of its guards moved, and releases its lease in the same step: `entries: [n] ->
   * replies: [n]`. Renews the TTL of a guard with less than half of it left. Atomic. One command.
   */
  fill(batch: FillBatch, deadline: Deadline): Promise<Filled>;

  /** Frees the memory of entries. Returns the number of entries that existed. One command. */
  delete(keys: readonly EntryKey[], deadline: Deadline): Promise<number>;

  /**
   * Puts a writer's token into each generation's own value, which destroys the generation. Creates missing keys, keeps
   * other writers' live tokens, drops lapsed ones. The token lapses `ttlMs` from now by the store's clock; a second call
   * with it renews it. `keys: [n]` -> the number of keys that already held the live token (0 at first).
   * A foreign value counts as a missing one. Atomic. One command (callers
   * chunk at 1,000).
   */
  quarantine(keys: readonly GenerationKey[], token: string, ttlMs: number, deadline: Deadline): Promise<number>;

  /**
   * Takes the token back, and keeps other writers' live tokens. A generation without a live token gets a value never used
   * before, made with `attempt`, a fresh nonce, and this TTL. `keys: [n] -> [n]`: `kept` if the token stood until now;
   * `lapsed` if it was gone (lapsed, evicted, flushed). In that case a generation at the key is bumped all the same, and a
   * missing one stays missing. Atomic. One command (callers chunk at 1,000).
   */
  lift(
    keys: readonly GenerationKey[],
    token: string,
    attempt: string,
    ttlMs: number,
    deadline: Deadline,
  ): Promise<readonly ('kept' | 'lapsed')[]>;

  /** The store's clock, in whole ms, rounded down. One command. */
  timeMs(deadline: Deadline): Promise<number>;

  /**
   * Extends freshness keys if the mark is `mark` and the server is a primary with this `incarnation`. The server checks
   * its own role and incarnation in the same step, so that a demotion under an open connection is noticed.
   *
   * Each key then expires at max(its expiry now, `untilMs`), an instant of the store's clock; an extended key gets a new
   * value, `<incarnation> <nonce>`. An `untilMs` in the past changes nothing. An `untilMs` further away than the key's
   * bound changes nothing either: the clock went back since the caller computed it. Likewise an expiry further away than
   * the bound is ignored, and so is the expiry of a value that names another incarnation.
   *
   * Keeps the mark alive, which expires after an hour without renewals. Atomic. One command.
   */
  renew(renewal: Renewal, deadline: Deadline): Promise<'renewed' | 'unmarked' | 'other_server'>;

  /**
   * Gives the global generation a value never used before, as `bump` does, and writes the mark, in one step.
   * Rejects with StoreUnavailableError, and writes nothing, if the server has another incarnation or is no primary.
   * Atomic. One command.
   */
  repair(repair: Repair, deadline: Deadline): Promise<void>;

  /**
   * Notes that readers ask for a bound, for ten minutes; the notes on other bounds stay. Returns the instant of the
   * mark's last renewal, by the store's clock, in ms; undefined without a mark. Readers call it while no relay keeps
   * their bound, and never for a hit. Atomic. One command.
   */
  demand?(demand: Demand, deadline: Deadline): Promise<number | undefined>;

  /** The freshness key and its TTL, for a reader that needs to know for how long the store is fresh. Atomic. One command. */
  freshness?(key: FreshnessKey, deadline: Deadline): Promise<FreshnessReading>;

  /** The mark that stands. One command. */
  readMark(markKey: MarkKey, deadline: Deadline): Promise<string | null>;

  /**
   * Begins to tell `listener` which generations change, without a call for each, until `close()` (docs/protocol.md,
   * rules 14 to 16). At most one listener. A store that can't tell changes has no such method.
   */
  track?(options: TrackingOptions, listener: TrackingListener): Tracking;
}

export interface TrackingOptions {
  /** The prefix of the partition's keys. */
  readonly prefix: string;
  /** Pause between two beats, in ms. A beat costs one command for all partitions of a server. */
  readonly beatEveryMs: number;
  /** The freshness key that each beat looks at, for a cache with a bound. */
  readonly freshnessKey?: FreshnessKey | undefined;
}

export interface Tracking {
  /** Ends the tracking. The listener is called no more. */
  close(): void;
}

/** Hears of changes in the order in which the store makes them. */
export interface TrackingListener {
  /** The generations at these keys may have changed. */
  changed(keys: readonly GenerationKey[]): void;

  /**
   * Changes may have been missed. From now on each change is told that the store of this incarnation makes; undefined: none
   * until the next reset.
   */
  reset(incarnation: string | undefined): void;

  /** Every change has been told that the store made until it received this beat. Beats come in the order of their sending. */
  beat(beat: Beat): void;

  /** The store can't tell changes, and why. Told once, until tracking has worked. The store tries again once in a while. */
  refused(error: Error): void;
}

/** A sign that changes are told, which went the way of the commands to the store and the way of the pushes back. */
export interface Beat {
  /** The moment before its command was sent. */
  readonly sentAt: Moment;
  /** The freshness key as the store had it then; undefined without `freshnessKey`. */
  readonly freshness?: FreshnessReading | undefined;
}

/** A freshness key, null for a missing one, and its TTL in ms. */
export interface FreshnessReading {
  readonly value: Buffer | null;
  readonly ttlMs: number;
}

/** Entries to be loaded. */
export interface ClaimBatch {
  /** The generations that guard the entries, and the value that each must still have. */
  readonly guards: readonly { readonly key: GenerationKey; readonly token: Generation }[];
  readonly entries: readonly {
    readonly key: EntryKey;
    /** Indexes into `guards`. */
    readonly guards: readonly number[];
    /** The first bytes of the value that is to be replaced; undefined if the entry was not there. */
    readonly replaced?: Buffer | undefined;
  }[];
  /** A fresh nonce, which names the holder of the leases; undefined to look only. */
  readonly token: string | undefined;
  /** The TTL of a lease, in ms. */
  readonly ttlMs: number;
}

export interface Claimed {
  readonly claims: readonly Claim[];
  /** The store's clock, in whole ms, rounded down. */
  readonly timeMs: number;
}

/**
 * - `yours`: the caller holds the lease until it fills, fails or the TTL ends. `free`: the caller only looked.
 * - `held`: another process holds the lease, and loads.
 * - `filled`: the entry is there, with another value than the one to be replaced.
 * - `moved`: a guard moved.
 * - `leaseless`: to be loaded without a lease. The last holder's load failed, or the store can't keep a lease.
 */
export type Claim = 'yours' | 'free' | 'held' | 'filled' | 'moved' | 'leaseless';

export interface FillBatch {
  /** The generations that guard the entries: the value that each must still have, and the TTL that it needs. */
  readonly guards: readonly { readonly key: GenerationKey; readonly token: Generation; readonly ttlMs: number }[];
  readonly entries: readonly {
    readonly key: EntryKey;
    readonly bytes: Buffer;
    readonly ttlMs: number;
    /** Indexes into `guards`. */
    readonly guards: readonly number[];
  }[];
  /**
   * The instant from which TTLs count, by the store's clock, in ms; at the latest they count from now. So an entry does not
   * live longer if the command waits in the buffers of a store that stands still.
   */
  readonly asOfMs: number;
  /** The token of the entries' leases: those that have it are released, filled or not. undefined without leases. */
  readonly lease: string | undefined;
}

export interface Filled {
  readonly replies: readonly FillReply[];
  /** The store's clock, in whole ms, rounded down. */
  readonly timeMs: number;
}

/**
 * `filled`; or refused: a guard `moved`, the key has another type (`foreign`), the store is too small (`oversized`), its
 * TTL is over (`expired`).
 */
export type FillReply = 'filled' | 'moved' | 'foreign' | 'oversized' | 'expired';

/** Lifetime of a mark without renewals, in ms. */
export const MARK_TTL_MS = 3_600_000;

/** A relay's request to extend freshness keys, after a check that found no older event left. */
export interface Renewal {
  readonly markKey: MarkKey;
  readonly mark: string;
  readonly incarnation: string;
  readonly keys: readonly { readonly key: FreshnessKey; readonly untilMs: number }[];
  /**
   * The instant at which the check began, by the store's clock. If the clock shows an earlier instant by now, it was
   * set back, and nothing is renewed.
   */
  readonly asOfMs: number;
  /** Fresh for each attempt. */
  readonly nonce: string;
}

/** A reader's request for a bound that no relay keeps. */
export interface Demand {
  readonly demandsKey: DemandsKey;
  readonly markKey: MarkKey;
  readonly boundMs: number;
}

/** A relay's request after the store, or the source, may have gone back in time. */
export interface Repair {
  readonly globalKey: GenerationKey;
  readonly markKey: MarkKey;
  readonly mark: string;
  readonly incarnation: string;
  /** A fresh nonce, for the global generation. */
  readonly attempt: string;
  /** Least TTL of the global generation, in ms. */
  readonly ttlMs: number;
}

/**
 * An event of a store between calls.
 *
 * - `up`: the store can be reached, for the first time or again; of a store on several servers, each of those in use.
 * - `server_up`: one of several servers can be reached, while others can't, or could be reached all the time.
 * - `down`: a server in use was lost, or an attempt to reach it failed.
 */
export type StoreSignal =
  | { readonly kind: 'up' | 'server_up' }
  | { readonly kind: 'down'; readonly error: Error }
  | { readonly kind: 'warning'; readonly message: string };

export type StoreListener = (signal: StoreSignal) => void;

/** The store was not reachable, or refused a command. `sent` tells whether the store may have executed the command. */
export class StoreUnavailableError extends GencacheError {
  readonly sent: boolean;
  /** Whether a server has answered, at once, that it does not serve these keys: no sign that it fails. */
  readonly answered: boolean;
  /** Whether no server serves these keys: none has answered, or one that is cut off or waits for a failover did. */
  readonly isOutage: boolean;

  constructor(
    message: string,
    sent: boolean,
    { answered = false, isOutage = !answered, ...options }: StoreErrorOptions = {},
  ) {
    super('STORE_UNAVAILABLE', message, options);
    this.sent = sent;
    this.answered = answered;
    this.isOutage = isOutage;
  }
}

interface StoreErrorOptions extends ErrorOptions {
  readonly answered?: boolean;
  readonly isOutage?: boolean;
}

/** The error of a repair that meets a server with another incarnation. */
export function repairRefused(incarnation: string): StoreUnavailableError {
  return new StoreUnavailableError(
    `Repair refused: the server is no primary, or its incarnation is not ${incarnation}. Nothing was written. Repair ` +
      'again with the incarnation that the store has now.',
    false,
  );
}
