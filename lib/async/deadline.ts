import { GencacheError } from '../errors/errors.js';

/** The store did not answer in time. What was sent may still be carried out. */
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

/** One limit for several awaits in a row. */
export class Deadline {
  readonly limitMs: number;
  readonly expiresAtMs: number;
  readonly #operation: string;
  #expired: DeadlineError | undefined;
  #cleared = false;
  /** Told at the limit; one that has settled before ignores it, and a deadline is short-lived. */
  #listeners: ((error: DeadlineError) => void)[] = [];

  constructor(operation: string, limitMs: number) {
    this.#operation = operation;
    this.limitMs = limitMs;
    this.expiresAtMs = performance.now() + limitMs;
    Alarm.of(limitMs).add(this);
  }

  /**
   * Settles as `work` does, its error made by `failed`; or rejects with DeadlineError at the limit. `settled` is told when
   * `work` settles, be it after the limit.
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

  /** Calls back at the limit, at once if it has passed. */
  onExpiry(listener: (error: DeadlineError) => void): void {
    if (this.#expired) listener(this.#expired);
    else this.#listeners.push(listener);
  }

  /** Ends the deadline. What still races is left to settle by itself. */
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
 * A timer for each would cost a read 3 to 4 µs, a tenth of its round trip: Node drops and makes the list of a duration,
 * and sets libuv's timer, each time its only timer goes and comes. (Measured 2026-11, Node 20.20, one read at a time.)
 *
 * When the timer fires, replies that already wait in the socket are read first (`setImmediate` runs after the poll
 * phase): an event loop that was blocked for longer than the limit would otherwise throw good answers away. The timer
 * does not keep a process alive; the connection that a deadline is about does.
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

  readonly #ring = (): void => {
    const nowMs = performance.now();
    const waiting = this.#deadlines.filter(({ cleared }) => !cleared);
    this.#deadlines = waiting.filter(({ expiresAtMs }) => expiresAtMs > nowMs);
    this.#armed = false;
    const [next] = this.#deadlines;
    if (next) this.#arm(next.expiresAtMs - nowMs);
    for (const deadline of waiting) if (deadline.expiresAtMs <= nowMs) deadline.expire();
  };
}

/** Runs `work`, whose awaits race the deadline it is given, under a limit of its own. */
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
