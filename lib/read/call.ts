import { monotonicMs } from '../async/scheduling.js';
import type { Address, EntryDefinition } from '../model/entry-definition.js';
import type { Attributes, ReadEvent } from '../telemetry/events.js';
import type { BypassReason, Staleness } from '../model/outcome.js';
import type { LookupResult } from './lookup.js';

/** Labels that a caller attached to its call. */
export interface CallLabels {
  readonly attributes: Attributes | undefined;
  readonly stack: string | undefined;
  /** Called for each stale value, before the call has its answer. */
  readonly onStale?: ((stale: Staleness & { readonly index: number }) => void) | undefined;
}

interface CallOptions {
  readonly definition: EntryDefinition;
  readonly addresses: readonly Address[];
  readonly labels: CallLabels;
  /** Called once, immediately before the answer settles. */
  readonly onSettled: (call: Call) => void;
}

/**
 * One call of `fetch` or `fetchMany`: its addresses, the counts of its `read` event, and its answer. The answer settles as
 * soon as it has all values, or with the first error.
 */
export class Call {
  readonly definition: EntryDefinition;
  readonly addresses: readonly Address[];
  readonly attributes: Attributes | undefined;
  readonly stack: string | undefined;
  /** Values of `addresses: [n] -> [n]`, same order; ABSENT where there is no row. */
  readonly answer: Promise<unknown[]>;

  readonly startedAtMs = monotonicMs();
  /** Number of distinct entries. */
  distinct = 0;
  hits = 0;
  absentHits = 0;
  localHits = 0;
  bypasses = 0;
  bypassReasons: Partial<Record<BypassReason, number>> = NO_REASONS;
  missed: ReadEvent['missed'][number][] = NONE;
  stale: StaleServed[] = NO_STALE;
  /** Number of entries that this call loads; an entry that an earlier call loads counts there. */
  loads = 0;
  failed = false;

  readonly #onStale: CallLabels['onStale'];
  readonly #onSettled: (call: Call) => void;
  readonly #values: unknown[];
  #pending: number;
  #resolve!: (values: unknown[]) => void;
  #reject!: (error: unknown) => void;

  constructor({ definition, addresses, labels, onSettled }: CallOptions) {
    this.definition = definition;
    this.addresses = addresses;
    this.attributes = labels.attributes;
    this.stack = labels.stack;
    this.#onStale = labels.onStale;
    this.#onSettled = onSettled;
    this.#values = new Array<unknown>(addresses.length);
    this.#pending = addresses.length;
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  count(address: Address, looked: LookupResult): void {
    if (looked.outcome === 'hit' || looked.outcome === 'absent') {
      if (looked.outcome === 'hit') this.hits++;
      else this.absentHits++;
      if (looked.local !== undefined) this.localHits++;
    } else if (looked.outcome === 'stale')
      return; // counted when it is served
    else if (looked.outcome === 'miss') {
      if (this.missed === NONE) this.missed = [];
      this.missed.push({ path: address.scope.path, cause: looked.cause, bumped: looked.bumped });
    } else {
      this.bypasses++;
      if (this.bypassReasons === NO_REASONS) this.bypassReasons = {};
      this.bypassReasons[looked.reason] = (this.bypassReasons[looked.reason] ?? 0) + 1;
    }
  }

  /** Whether the call has its answer, or its error. */
  get isSettled(): boolean {
    return this.#pending <= 0;
  }

  give(position: number, value: unknown): void {
    if (this.#pending <= 0) return;
    this.#values[position] = value;
    if (--this.#pending > 0) return;
    this.#onSettled(this);
    this.#resolve(this.#values);
  }

  /** Counts a stale value, of one distinct entry, that the call gets, in place of its miss if it was one. */
  countStale({ scope }: Address, staleness: Staleness): void {
    if (this.isSettled) return;
    // Of the other reasons no miss was counted; one of the same scope would be another entry's.
    if (staleness.reason === 'error' || staleness.reason === 'slow') {
      const missed = this.missed.findIndex(({ path }) => path === scope.path);
      if (missed >= 0) this.missed.splice(missed, 1);
    }
    if (this.stale === NO_STALE) this.stale = [];
    this.stale.push({ path: scope.path, ...staleness });
  }

  /** Gives a stale value. */
  giveStale(position: number, value: unknown, staleness: Staleness): void {
    if (this.isSettled) return;
    this.#onStale?.({ ...staleness, index: position });
    this.give(position, value);
  }

  fail(error: unknown): void {
    if (this.#pending <= 0) return;
    this.#pending = -1;
    this.failed = true;
    this.#onSettled(this);
    this.#reject(error);
  }
}

/** A stale value that a call got. */
export interface StaleServed extends Staleness {
  readonly path: string;
}

/** Shared by all calls without a stale value. */
const NO_STALE: StaleServed[] = [];
/** Shared by all calls without a miss. */
const NONE: ReadEvent['missed'][number][] = [];
/** Shared by all calls without a bypass. */
const NO_REASONS: Partial<Record<BypassReason, number>> = {};
