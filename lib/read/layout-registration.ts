import { endsWithin } from '../async/ends-within.js';
import { inNoContext } from '../async/no-context.js';
import { suspensionClock } from '../ports/clock.js';

/** A registration is renewed after this time, in ms: a registry that lost it, in a failover, has it again. */
const RENEWED_AFTER_MS = 300_000;
/** Where there is no registry, one is looked for after this time, in ms. */
const LOOKED_FOR_AFTER_MS = 10_000;
/** A registration older than this counts for nothing, in ms; the registry keeps it for a week. */
const STANDS_MS = 24 * 3_600_000;
/** Time between two attempts after a failure, in ms. */
const RETRY_MS = 1_000;

interface LayoutRegistrationOptions {
  /** Resolves to false where there is no registry. */
  readonly register: () => Promise<boolean>;
  readonly warn: (message: string) => void;
  readonly track: (work: Promise<unknown>) => void;
}

/**
 * Keeps this process' number of partitions registered (docs/protocol.md, rule 24).
 *
 * **Invariant.** While `stands` is true, a program that reads the registry after a commit finds this process' layout, or there
 * is no registry. The age of a registration counts the time for which the machine was suspended.
 */
export class LayoutRegistration {
  readonly #options: LayoutRegistrationOptions;
  #renewedAfterMs = RENEWED_AFTER_MS;
  readonly #clock = suspensionClock();
  #registeredAtMs = -Infinity;
  #retryAtMs = -Infinity;
  #registering: Promise<void> | undefined;
  #hasWarned = false;

  constructor(options: LayoutRegistrationOptions) {
    this.#options = options;
  }

  /** Whether lookups may use the store. Renews an old registration behind the answer. */
  get stands(): boolean {
    const ageMs = this.#ageMs;
    if (ageMs > this.#renewedAfterMs) this.#register();
    return ageMs <= STANDS_MS;
  }

  /** Waits for the registration for this time at most, in ms. Returns whether it stands. Never rejects. */
  async within(ms: number): Promise<boolean> {
    if (!this.stands && this.#registering !== undefined) await endsWithin(ms, this.#registering);
    return this.stands;
  }

  get #ageMs(): number {
    return this.#clock.nowMs() - this.#registeredAtMs;
  }

  #register(): void {
    if (this.#registering !== undefined || this.#clock.nowMs() < this.#retryAtMs) return;
    this.#registering = inNoContext(this.#attempt);
    this.#options.track(this.#registering);
  }

  readonly #attempt = async (): Promise<void> => {
    const nowMs = this.#clock.nowMs();
    try {
      const isRegistered = await this.#options.register();
      this.#renewedAfterMs = isRegistered ? RENEWED_AFTER_MS : LOOKED_FOR_AFTER_MS;
      this.#registeredAtMs = nowMs;
      this.#hasWarned = false;
    } catch (error) {
      this.#retryAtMs = this.#clock.nowMs() + RETRY_MS;
      if (!this.#hasWarned) this.#options.warn(`${FACT} ${(error as Error).message}`);
      this.#hasWarned = true;
    } finally {
      this.#registering = undefined;
    }
  };
}

const FACT =
  'The number of partitions of this cache could not be registered in the outbox, and reads bypass the cache until it is: a ' +
  'bump by a process with another number would not reach them.';
