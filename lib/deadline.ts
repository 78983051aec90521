import { GencacheError } from './errors.js';

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

/**
 * One limit for several awaits in a row.
 *
 * When the timer fires, replies that already wait in the socket are read first (`setImmediate` runs after the poll
 * phase): an event loop that was blocked for longer than the limit would otherwise throw good answers away.
 */
export class Deadline {
  readonly limitMs: number;
  #operation: string;
  #timer: NodeJS.Timeout | undefined;
  #expired: DeadlineError | undefined;
  /** Told at the limit; one that has settled before ignores it, and a deadline is short-lived. */
  #listeners: ((error: DeadlineError) => void)[] = [];

  constructor(operation: string, limitMs: number) {
    this.#operation = operation;
    this.limitMs = limitMs;
    this.#timer = setTimeout(() => setImmediate(() => this.#expire()), limitMs);
  }

  /** Settles as `work` does, its error made by `failed`; or rejects with DeadlineError at the limit. */
  race<T>(work: PromiseLike<T>, failed: (cause: unknown) => unknown): Promise<T> {
    return new Promise((resolve, reject) => {
      this.onExpiry(reject);
      work.then(resolve, (cause: unknown) => reject(failed(cause)));
    });
  }

  /** Calls back at the limit, at once if it has passed. */
  onExpiry(listener: (error: DeadlineError) => void): void {
    if (this.#expired) listener(this.#expired);
    else this.#listeners.push(listener);
  }

  /** Ends the timer. What still races is left to settle by itself. */
  clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #expire(): void {
    if (this.#timer === undefined) return;
    this.#expired = new DeadlineError(this.#operation, this.limitMs);
    for (const listener of this.#listeners) listener(this.#expired);
  }
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
