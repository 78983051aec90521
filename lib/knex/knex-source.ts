import type { Knex } from 'knex';
import type { Source } from '../source.js';

/** What loaders of a Knex source read with. */
export interface KnexContext {
  /** The Knex instance, or the caller's transaction for a `fetch` inside one. */
  readonly db: Knex;
}

/** Loads by Knex: loaders get `{ db }`. Opens nothing and closes nothing. */
export function knexSource(db: Knex): Source<KnexContext, Knex.Transaction> {
  const context: KnexContext = { db };
  return { context: (trx) => (trx === undefined ? context : { db: trx }) };
}
