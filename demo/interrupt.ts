import { constants } from 'node:os';

/** Somebody asked the demo to stop. */
export class Interrupted extends Error {
  /** As shells have it: 128 and the signal's number. */
  readonly exitCode: number;

  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super(`Stopped by ${signal}.`);
    this.exitCode = 128 + constants.signals[signal];
  }
}

/** Aborts at the first SIGINT or SIGTERM, so that what was made is removed; a second one ends the process at once. */
export function abortOnSignals(stop: AbortController): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      const interrupted = new Interrupted(signal);
      if (stop.signal.aborted) process.exit(interrupted.exitCode);
      stop.abort(interrupted);
    });
  }
}
