/**
 * A circuit breaker for the store's calls of one kind (M. Nygard, Release It!, 2007).
 *
 *     closed -> (failures in a row) -> open -> (a call succeeds) -> closed
 *
 * Without it, each read of an outage waits for its whole deadline before it goes to the source. An open breaker admits one
 * call in a while, the probe: a read of a caller like any other. No caller waits for the probe of another.
 *
 * Reads and fills have a breaker each, since a full store (OOM) and a replica (READONLY) refuse fills alone. Bumps,
 * quarantines, lifts and relays never ask a breaker: they fail, or wait in the outbox (docs/protocol.md, rule 23).
 *
 * cockatiel's breaker was considered: while it probes, its further callers wait for the result of the probe. opossum's
 * wraps every call in two promises and a timer of statistics, on the path of each hit.
 */
import type { Clock } from '../ports/clock.js';
import { StoreUnavailableError } from '../ports/store.js';

interface BreakerOptions {
  readonly clock: Clock;
  readonly limits: BreakerLimits;
  /** Called at each change; `error` is the failure that opened the breaker. */
  readonly changed: (isOpen: boolean, error: Error | undefined) => void;
}

export interface BreakerLimits {
  /** Failures in a row that open the breaker; 0 keeps it closed. */
  readonly breakerFailures: number;
  /** Time between two probes, in ms; jitter shortens it by up to a half. */
  readonly breakerRetryMs: number;
}

export class Breaker {
  readonly #clock: Clock;
  readonly #limits: BreakerLimits;
  #changed: BreakerOptions['changed'];
  /** Failures since the last success, while closed. */
  #failures = 0;
  /** Instant from which the next probe is admitted; undefined while closed. */
  #retryAtMs: number | undefined;

  constructor({ clock, limits, changed }: BreakerOptions) {
    this.#clock = clock;
    this.#limits = limits;
    this.#changed = changed;
  }

  /** Returns whether a call may be sent now. The caller reports its result by `succeeded` or `failed`. */
  admits(): boolean {
    if (this.#retryAtMs === undefined) return true;
    if (!this.isDue) return false;
    // A probe that never reports does not keep the breaker open: another one follows.
    this.#waitForRetry();
    return true;
  }

  /** Whether `admits` would return true. */
  get isDue(): boolean {
    return this.#retryAtMs === undefined || this.#clock.nowMs() >= this.#retryAtMs;
  }

  get isOpen(): boolean {
    return this.#retryAtMs !== undefined;
  }

  succeeded(): void {
    this.#failures = 0;
    if (this.#retryAtMs === undefined) return;
    this.#retryAtMs = undefined;
    this.#changed(false, undefined);
  }

  failed(error: Error): void {
    if (error instanceof StoreUnavailableError && error.answered) return this.succeeded();
    if (this.#retryAtMs !== undefined || ++this.#failures !== this.#limits.breakerFailures) return;
    this.#failures = 0;
    this.#waitForRetry();
    this.#changed(true, error);
  }

  /** Closes for good. Calls under way still report, and no change follows from it. */
  retire(): void {
    this.succeeded();
    this.#changed = () => {};
  }

  /** Admits a probe at once: the store says that it can be reached again. */
  retryNow(): void {
    if (this.#retryAtMs !== undefined) this.#retryAtMs = -Infinity;
  }

  #waitForRetry(): void {
    this.#retryAtMs = this.#clock.nowMs() + this.#limits.breakerRetryMs * (0.5 + Math.random() / 2);
  }
}
