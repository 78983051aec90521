import type { Knex } from 'knex';
import type { Source } from '../ports/source.js';
import { cancellable } from './cancellable.js';
import { KnexOutbox } from './knex-outbox.js';
import { publishDeclaration } from './outbox/declarations.js';
import { explainOutboxError } from './outbox/explain-error.js';
import { KnexLayouts } from './outbox/layouts.js';
import { PUBLISHER_RIGHTS } from './outbox/missing-rights.js';
import type { OutboxOptions } from './outbox/location.js';

/** The context of loaders that read by Knex. */
export interface KnexContext {
  /** The Knex instance, or the caller's transaction for a `fetch` inside one. */
  readonly db: Knex;
}

/**
 * A source that reads by Knex: loaders get `{ db }`. Bumps inside a transaction are recorded in the outbox that
 * `installOutbox` made. A load that takes longer than its hard timeout is cancelled at the server, on a connection made
 * for that; apart from it, opens and closes no connection. What the cache is, its namespaces above all, is published in the
 * outbox, if there is one.
 */
export function knexSource(db: Knex, options: OutboxOptions = {}): Source<KnexContext, Knex.Transaction> {
  const context: KnexContext = { db };
  return {
    explain: (error) => ((error as Error)?.name === 'KnexTimeoutError' ? NO_CONNECTION : undefined),
    context: (trx) => (trx === undefined ? context : { db: trx }),
    cancellable: (signal) => ({ db: cancellable(db, signal) }),
    publish: (declaration, replaced) =>
      publishDeclaration(db, options, declaration, replaced).catch(async (error: unknown) => {
        throw await explainOutboxError(db, error, { outbox: options, rights: PUBLISHER_RIGHTS });
      }),
    outbox: new KnexOutbox(db, options),
    layouts: new KnexLayouts(db, options),
  };
}

const NO_CONNECTION =
  'A load found no free connection in the pool of Knex within acquireConnectionTimeout. A fetch without trx inside a ' +
  'transaction waits for a second connection while it holds the first. Pass the transaction, `fetch(ids, { trx })`, ' +
  'read before it, or give the Knex of knexSource a pool of its own.';
