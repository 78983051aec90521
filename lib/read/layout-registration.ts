import { endsWithin } from '../async/ends-within.js';
import { inNoContext } from '../async/no-context.js';
import { monotonicMs } from '../async/scheduling.js';

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
 * is no registry. The age of a registration is the longer of two: by the monotonic clock, which stands still while the machine
 * sleeps, and by the system's, which may be set back.
 */
export class LayoutRegistration {
  readonly #options: LayoutRegistrationOptions;
  #renewedAfterMs = RENEWED_AFTER_MS;
  #registeredAt: { readonly ownMs: number; readonly wallMs: number } | undefined;
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
    const at = this.#registeredAt;
    return at === undefined ? Infinity : Math.max(monotonicMs() - at.ownMs, Date.now() - at.wallMs);
  }

  #register(): void {
    if (this.#registering !== undefined || monotonicMs() < this.#retryAtMs) return;
    this.#registering = inNoContext(this.#attempt);
    this.#options.track(this.#registering);
  }

  readonly #attempt = async (): Promise<void> => {
    const now = { ownMs: monotonicMs(), wallMs: Date.now() };
    try {
      const isRegistered = await this.#options.register();
      this.#renewedAfterMs = isRegistered ? RENEWED_AFTER_MS : LOOKED_FOR_AFTER_MS;
      this.#registeredAt = now;
      this.#hasWarned = false;
    } catch (error) {
      this.#retryAtMs = monotonicMs() + RETRY_MS;
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
