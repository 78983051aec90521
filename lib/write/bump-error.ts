import { GencacheError } from '../errors/errors.js';

interface BumpErrorOptions {
  readonly outcome: BumpError['outcome'];
  readonly paths: readonly string[];
  readonly message: string;
  readonly cause?: unknown;
}

/**
 * A bump that failed, or whose outcome is unknown.
 *
 * - `not_sent`: the store could not be reached.
 * - `unknown`: the command was sent, and the store may have carried it out.
 */
export class BumpError extends GencacheError {
  readonly outcome: 'not_sent' | 'unknown';
  /** Every scope whose bump failed or has an unknown outcome. */
  readonly paths: readonly string[];

  constructor({ outcome, paths, message, cause }: BumpErrorOptions) {
    super('BUMP', message, cause === undefined ? undefined : { cause });
    this.outcome = outcome;
    this.paths = paths;
  }
}
