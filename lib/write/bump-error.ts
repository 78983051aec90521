import { GencacheError } from '../errors/errors.js';

/**
 * A bump that did not happen, or may not have.
 *
 * - `not_sent`: the store could not be asked. - `unknown`: it was asked, and may have carried it out.
 * - `refused`: something else than a generation stands at these scopes' keys; the others were bumped.
 */
export class BumpError extends GencacheError {
  readonly outcome: 'not_sent' | 'unknown' | 'refused';
  /** Every scope that was not bumped, or may not have been. */
  readonly paths: readonly string[];

  constructor(outcome: BumpError['outcome'], paths: readonly string[], message: string, options?: ErrorOptions) {
    super('BUMP', message, options);
    this.outcome = outcome;
    this.paths = paths;
  }
}
