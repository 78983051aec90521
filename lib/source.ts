/**
 * The port to where loads read. It gives loaders their context (for Knex: `{ db }`), and is all the cache knows of
 * databases and transactions: `trx` passes through unopened.
 */
export interface Source<Context, Transaction> {
  /** What loaders get to read with: the source itself, or the caller's transaction. */
  context(trx?: Transaction): Context;
}

/** A cache without a source: loaders close over what they read from. */
export const noSource: Source<Record<never, never>, never> = { context: () => ({}) };
