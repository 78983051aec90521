import { GencacheError } from '../errors/errors.js';

interface BumpErrorOptions {
  readonly outcome: BumpError['outcome'];
  readonly paths: readonly string[];
  readonly message: string;
  readonly cause?: unknown;
}

/**
 * A bump that did not happen, or may not have.
 *
 * - `not_sent`: the store could not be asked.
 * - `unknown`: the command was sent, and the store may have carried it out.
 * - `refused`: a value of another form or type is at the keys of these scopes; the others were bumped.
 */
export class BumpError extends GencacheError {
  readonly outcome: 'not_sent' | 'unknown' | 'refused';
  /** Every scope that was not bumped, or may not have been. */
  readonly paths: readonly string[];

  constructor({ outcome, paths, message, cause }: BumpErrorOptions) {
    super('BUMP', message, cause === undefined ? undefined : { cause });
    this.outcome = outcome;
    this.paths = paths;
  }
}
