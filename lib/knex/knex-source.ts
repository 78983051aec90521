import type { Knex } from 'knex';
import type { Source } from '../ports/source.js';
import { KnexOutbox } from './knex-outbox.js';
import type { OutboxOptions } from './outbox/location.js';

/** What loaders of a Knex source read with. */
export interface KnexContext {
  /** The Knex instance, or the caller's transaction for a `fetch` inside one. */
  readonly db: Knex;
}

/**
 * Loads by Knex: loaders get `{ db }`. Records bumps in the outbox that `installOutbox` made, when asked to. Opens
 * nothing and closes nothing.
 */
export function knexSource(db: Knex, options: OutboxOptions = {}): Source<KnexContext, Knex.Transaction> {
  const context: KnexContext = { db };
  return {
    context: (trx) => (trx === undefined ? context : { db: trx }),
    outbox: new KnexOutbox(db, options),
  };
}
