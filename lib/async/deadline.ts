import { monotonicMs, setImmediate, setTimeout } from './scheduling.js';
import { GencacheError } from '../errors/errors.js';
import { inNoContext } from './no-context.js';

/** The store did not answer in time. It may still carry out a command that was sent. */
export class DeadlineError extends GencacheError {
  readonly limitMs: number;

  constructor(operation: string, limitMs: number) {
    super(
      'DEADLINE',
      `A ${operation} must be answered by the store within ${limitMs} ms, and was not. ` +
        'Look at the load of the store and of this event loop, or raise the deadline.',
    );
    this.limitMs = limitMs;
  }
}

/** One time limit for several awaits in a row, in ms. */
export class Deadline {
  readonly limitMs: number;
  readonly expiresAtMs: number;
  readonly #operation: string;
  #expired: DeadlineError | undefined;
  #cleared = false;
  /** Called at the limit, settled or not: a settled promise ignores the call, and a deadline is short-lived. */
  #listeners: ((error: DeadlineError) => void)[] = [];

  constructor(operation: string, limitMs: number) {
    this.#operation = operation;
    this.limitMs = limitMs;
    this.expiresAtMs = monotonicMs() + limitMs;
    Alarm.of(limitMs).add(this);
  }

  /**
   * Settles as `work` does, its error mapped by `failed`; or rejects with DeadlineError at the limit. `settled` is called
   * when `work` settles, even after the limit.
   */
  race<T>(work: PromiseLike<T>, failed: (cause: unknown) => unknown, settled?: () => void): Promise<T> {
    return new Promise((resolve, reject) => {
      this.onExpiry(reject);
      work.then(
        (value) => {
          settled?.();
          resolve(value);
        },
        (cause: unknown) => {
          settled?.();
          reject(failed(cause));
        },
      );
    });
  }

  /** Calls `listener` at the limit; at once if the limit has passed. */
  onExpiry(listener: (error: DeadlineError) => void): void {
    if (this.#expired) listener(this.#expired);
    else this.#listeners.push(listener);
  }

  /** Ends the deadline. Work that still races settles by itself. */
  clear(): void {
    this.#cleared = true;
    this.#listeners = [];
  }

  get cleared(): boolean {
    return this.#cleared;
  }

  expire(): void {
    if (this.#cleared) return;
    this.#expired = new DeadlineError(this.#operation, this.limitMs);
    for (const listener of this.#listeners) listener(this.#expired);
    this.clear();
  }
}

/**
 * One timer for all deadlines of one length, which expire in the order in which they were set.
 *
 * A timer per deadline would cost a read 3 to 4 µs, a tenth of its round trip: each time the only timer of a duration
 * ends and another starts, Node rebuilds the list of that duration and sets libuv's timer. (Measured 2026-11, Node 20.20,
 * one read at a time.)
 *
 * When the timer fires, the event loop first reads the replies that wait in the socket (`setImmediate` runs after the
 * poll phase): an event loop that was blocked for longer than the limit would otherwise lose replies that arrived in
 * time. The timer does not keep a process alive; the connection of the command does.
 */
class Alarm {
  static readonly #byLimit = new Map<number, Alarm>();
  readonly #limitMs: number;
  #deadlines: Deadline[] = [];
  #armed = false;

  static of(limitMs: number): Alarm {
    let alarm = Alarm.#byLimit.get(limitMs);
    if (!alarm) Alarm.#byLimit.set(limitMs, (alarm = new Alarm(limitMs)));
    return alarm;
  }

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  add(deadline: Deadline): void {
    this.#deadlines.push(deadline);
    if (!this.#armed) this.#arm(this.#limitMs);
    else if (this.#deadlines.length % 1_024 === 0) this.#deadlines = this.#deadlines.filter(({ cleared }) => !cleared);
  }

  #arm(inMs: number): void {
    this.#armed = true;
    setTimeout(() => setImmediate(this.#ring), inMs).unref();
  }

  // The timer belongs to the caller that armed it; its deadlines are those of many.
  readonly #ring = (): void => inNoContext(this.#expireDue);

  readonly #expireDue = (): void => {
    const nowMs = monotonicMs();
    const waiting = this.#deadlines.filter(({ cleared }) => !cleared);
    this.#deadlines = waiting.filter(({ expiresAtMs }) => expiresAtMs > nowMs);
    this.#armed = false;
    const [next] = this.#deadlines;
    if (next) this.#arm(next.expiresAtMs - nowMs);
    for (const deadline of waiting) if (deadline.expiresAtMs <= nowMs) deadline.expire();
  };
}

/** Runs `work` with a deadline of `limitMs`, which its awaits race. Rejects as `work` does. */
export async function withDeadline<T>(
  operation: string,
  limitMs: number,
  work: (deadline: Deadline) => Promise<T>,
): Promise<T> {
  const deadline = new Deadline(operation, limitMs);
  try {
    return await work(deadline);
  } finally {
    deadline.clear();
  }
}
