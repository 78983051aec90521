import type { Deadline } from '../deadline.js';
import { GencacheError } from '../errors.js';
import type { Generation } from '../generation.js';
import type { EntryKey, GenerationKey } from '../key.js';

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

  /** `keys: [n] -> [n]`, null where nothing is, or something of another type. Atomic. One command. */
  read(keys: readonly (GenerationKey | EntryKey)[], deadline: Deadline): Promise<readonly (Buffer | null)[]>;

  /**
   * Gives each missing generation `token`, with this TTL: `keys: [n] -> [n]`, the values that now stand, `foreign`
   * where something else than a generation is. Atomic. One command.
   */
  mint(
    keys: readonly GenerationKey[],
    token: Generation,
    ttlMs: number,
    deadline: Deadline,
  ): Promise<readonly (Generation | 'foreign')[]>;

  /**
   * Gives each existing generation a value never used before, made with `attempt`, a fresh nonce:
   * `keys: [n] -> [n]`, the new values, `missing` where there was none (and none is written), `foreign` where
   * something else is (and stays). Renews the TTL to at least `ttlMs`, never shortens it. Atomic. One command.
   */
  bump(
    keys: readonly GenerationKey[],
    attempt: string,
    ttlMs: number,
    deadline: Deadline,
  ): Promise<readonly (Generation | 'missing' | 'foreign')[]>;

  /**
   * Stores each entry unless one of its guards moved: `entries: [n] -> [n]`. Renews the TTL of guards that have
   * less than half of theirs left. Atomic. One command.
   */
  fill(batch: FillBatch, deadline: Deadline): Promise<readonly FillReply[]>;

  /** Frees the memory of entries. Returns how many there were. One command. */
  delete(keys: readonly EntryKey[], deadline: Deadline): Promise<number>;

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

/** What happens to a store between calls. */
export type StoreSignal =
  | { readonly kind: 'up' }
  | { readonly kind: 'down'; readonly error: Error }
  | { readonly kind: 'notice'; readonly message: string };

export type StoreListener = (signal: StoreSignal) => void;

/** The store could not be asked, or refused. `sent` tells whether the command may have been carried out. */
export class StoreUnavailableError extends GencacheError {
  readonly sent: boolean;

  constructor(message: string, sent: boolean, options?: ErrorOptions) {
    super('STORE_UNAVAILABLE', message, options);
    this.sent = sent;
  }
}
