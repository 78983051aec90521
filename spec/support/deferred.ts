import { setTimeout as sleep } from 'node:timers/promises';

export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

/** A promise that the spec settles: holds a race open at one step without sleeping. */
export function deferred<T = void>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}

/** Half of what a spec may take: a busy machine is not to decide what holds. In ms. */
const WITHIN_MS = 30_000;

/**
 * Repeats an assertion until it holds, every 10 ms, and returns its value. After `withinMs` it throws the
 * assertion's last error. For what another process does in its own time; within this one, hold a `deferred`.
 */
export async function eventually<T>(assertion: () => T | Promise<T>, { withinMs = WITHIN_MS } = {}): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    try {
      return await assertion();
    } catch (error) {
      if (performance.now() >= deadline) throw error;
    }
    await sleep(10);
  }
}
