import type { Deadline } from '../async/deadline.js';
import { GencacheError } from '../errors/errors.js';
import { type Generation, GENERATION_RULE } from '../model/generation.js';
import type { EntryKey, FreshnessKey, GenerationKey, MarkKey } from '../model/key.js';

/**
 * The port that every store implements: bytes under keys that expire, read and written in atomic steps.
 *
 * One contract suite runs on each implementation. A store knows what a generation's value looks like, so that it
 * can bump one in place, and nothing of namespaces, entries' contents or loaders. Every call takes the caller's
 * deadline: a store that is not ready waits for it within that, and rejects with `StoreUnavailableError` or
 * `DeadlineError`; it never waits for ever.
 */
export interface Store {
  /** For logs: `redis`, `memory`. */
  readonly name: string;

  /** A store that holds nothing: every lookup is a bypass, every bump a no-op. For tests and emergencies. */
  readonly bypassed?: boolean;

  /** Tells what goes on outside calls: connections lost and found, start-up notices. At most one listener. */
  listen?(listener: StoreListener): void;

  /**
   * Who the store is now: changes whenever it may have gone back in time (a restart, a failover). Without spaces; for
   * Redis `<run_id>.<master_replid>`, as INFO told when the connection in use was opened, or was asked again.
   * undefined: not connected, or not told.
   */
  readonly incarnation: string | undefined;

  /**
   * Somebody has reason to think that the store is no longer who it was: it looks again, soon, and not at every call.
   * `incarnation` then says what it found. `renew` and `repair` that meet another server do this themselves.
   */
  revalidate?(): void;

  /** `keys: [n] -> [n]`, null where nothing is, or something of another type. Atomic. One command. */
  read(
    keys: readonly (GenerationKey | EntryKey | FreshnessKey)[],
    deadline: Deadline,
  ): Promise<readonly (Buffer | null)[]>;

  /**
   * Gives each missing generation `token`, with this TTL: `keys: [n] -> [n]`, the values that now stand, `quarantined`
   * where a writer's token is, `foreign` where something else is. Atomic. One command.
   */
  mint(
    keys: readonly GenerationKey[],
    token: Generation,
    ttlMs: number,
    deadline: Deadline,
  ): Promise<readonly (Generation | 'quarantined' | 'foreign')[]>;

  /**
   * Gives each existing generation a value never used before, made with `attempt`, a fresh nonce:
   * `keys: [n] -> [n]`, the new values, `missing` where there was none (and none is written), `quarantined` where
   * writers' tokens are (and stay, until the instant they had: nothing old can be read there), `foreign` where
   * something else is (and stays). Renews the TTL to at least
   * `ttlMs`, never shortens it; 0 leaves it to fills, which renew what they need. Atomic. One command.
   */
  bump(
    keys: readonly GenerationKey[],
    attempt: string,
    ttlMs: number,
    deadline: Deadline,
  ): Promise<readonly (Generation | 'missing' | 'quarantined' | 'foreign')[]>;

  /**
   * Stores each entry unless one of its guards moved: `entries: [n] -> [n]`. Renews the TTL of guards that have
   * less than half of theirs left. Atomic. One command.
   */
  fill(batch: FillBatch, deadline: Deadline): Promise<readonly FillReply[]>;

  /** Frees the memory of entries. Returns how many there were. One command. */
  delete(keys: readonly EntryKey[], deadline: Deadline): Promise<number>;

  /**
   * Puts a writer's token into each generation's own value, which destroys the generation: missing ones are created,
   * other writers' live tokens are kept, lapsed ones dropped. The token lapses `ttlMs` from now by the store's clock;
   * the same token again renews it. `keys: [n]` -> how many of them still held the token (0 at first).
   * Rejects with StoreUnavailableError, and puts it nowhere, if something foreign is at one of them. Atomic. One
   * command (callers chunk at 1,000).
   */
  quarantine(keys: readonly GenerationKey[], token: string, ttlMs: number, deadline: Deadline): Promise<number>;

  /**
   * Takes the token back. A generation with no live token left gets a value never used before, made with `attempt`, a
   * fresh nonce, and this TTL; other writers' live tokens are kept. `keys: [n] -> [n]`: `kept` if the token stood until
   * now; `lapsed` if it had gone (lapsed, evicted, flushed), and then a generation found there is bumped all the same,
   * a missing one left missing. Atomic. One command (callers chunk at 1,000).
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
   * Extends freshness keys, if the mark is `mark` and the server that runs this is a primary and `incarnation`, by its
   * own word then and there, so that a demotion under an open connection is noticed. Each key then expires at
   * max(its expiry now, `untilMs`), an instant of the store's clock. One that is extended gets a new value,
   * `<incarnation> <nonce>`. An `untilMs` in the past changes nothing, nor does one further away than the key's bound:
   * the clock went back since it was reckoned, so it is no instant of this clock. For the same reason an expiry further
   * away than that does not count; nor does that of a value which names another incarnation.
   * Keeps the mark alive, which expires after an hour without this. Returns what it found. Atomic. One command.
   */
  renew(renewal: Renewal, deadline: Deadline): Promise<'renewed' | 'unmarked' | 'other_server'>;

  /**
   * Gives the global generation a value never used before, as `bump` does, and then writes the mark: in one step.
   * Rejects with StoreUnavailableError, and does nothing, if the server that runs this is not `incarnation` or not a
   * primary. One command.
   */
  repair(repair: Repair, deadline: Deadline): Promise<void>;

  /** The mark that stands. One command. */
  readMark(markKey: MarkKey, deadline: Deadline): Promise<string | null>;

  /** Ends what the store opened itself. */
  close(): Promise<void>;
}

export interface FillBatch {
  /** The generations that guard the entries: what each must still be, and the TTL it needs. */
  readonly guards: readonly { readonly key: GenerationKey; readonly token: Generation; readonly ttlMs: number }[];
  readonly entries: readonly {
    readonly key: EntryKey;
    readonly bytes: Buffer;
    readonly ttlMs: number;
    /** Indexes into `guards`. */
    readonly guards: readonly number[];
  }[];
}

/** `filled`; or refused: a guard `moved`, something else is at the key (`foreign`), the store is too small (`oversized`). */
export type FillReply = 'filled' | 'moved' | 'foreign' | 'oversized';

/** For how long a mark stays that nobody renews, in ms. */
export const MARK_TTL_MS = 3_600_000;

/** What a relay asks for when its check found that nothing old is left unbumped until some instants. */
export interface Renewal {
  readonly markKey: MarkKey;
  readonly mark: string;
  readonly incarnation: string;
  readonly keys: readonly { readonly key: FreshnessKey; readonly untilMs: number }[];
  /** When the check began, by the store's clock: one that shows less by now went back, and nothing is renewed. */
  readonly asOfMs: number;
  /** Fresh for each attempt. */
  readonly nonce: string;
}

/** What a relay asks for when the store, or the source, may have gone back in time. */
export interface Repair {
  readonly globalKey: GenerationKey;
  readonly markKey: MarkKey;
  readonly mark: string;
  readonly incarnation: string;
  /** A fresh nonce, for the global generation. */
  readonly attempt: string;
  /** What the global generation is kept for at least. */
  readonly ttlMs: number;
}

/** What happens to a store between calls. */
export type StoreSignal =
  | { readonly kind: 'up' }
  | { readonly kind: 'down'; readonly error: Error }
  | { readonly kind: 'warning'; readonly message: string };

export type StoreListener = (signal: StoreSignal) => void;

/** The store could not be asked, or refused. `sent` tells whether the command may have been carried out. */
export class StoreUnavailableError extends GencacheError {
  readonly sent: boolean;

  constructor(message: string, sent: boolean, options?: ErrorOptions) {
    super('STORE_UNAVAILABLE', message, options);
    this.sent = sent;
  }
}

/** A quarantine that meets something foreign at a generation's key. */
export function notToQuarantine(key: GenerationKey): StoreUnavailableError {
  return new StoreUnavailableError(
    `A generation is ${GENERATION_RULE}, or under quarantine. Something else is at ${key}, so nothing was put under ` +
      'quarantine. See who writes there; delete the key if nobody needs it.',
    false,
  );
}

/** A repair that meets another server than the one it is for. */
export function repairRefused(incarnation: string): StoreUnavailableError {
  return new StoreUnavailableError(
    `A repair is made on the primary whose incarnation was recorded for it, ${incarnation}. Another server, or one that ` +
      'is no longer a primary, was asked, and did nothing. Begin anew with the incarnation that the store has now.',
    false,
  );
}
