import { ConfigurationError } from '../../errors/errors.js';
import { isSqlstate, serverMessageOf } from '../postgres/sqlstate.js';
import type { OutboxOptions } from './location.js';

/** One of the outbox's tables as the server names it, in any language; not a schema of such a name. */
const OUTBOX_TABLE = /(?:^|[^A-Za-z0-9_])gencache_[a-z_]+(?![A-Za-z0-9_.])/;

/** Whether a query failed since there is no outbox where it looked, or one of an older release. */
export function isOutboxMissing(error: unknown): boolean {
  return error instanceof Error && isSqlstate(error, 'undefined table') && OUTBOX_TABLE.test(serverMessageOf(error));
}

/** The error itself; or, if what is missing is the outbox, one that says so in a sentence. */
export function explainMissingOutbox(error: unknown, { schema }: OutboxOptions): unknown {
  if (!isOutboxMissing(error)) return error;
  const where = schema === undefined ? 'on the search path of this connection' : `in the schema "${schema}"`;
  return new ConfigurationError(
    `What changes is recorded in an outbox. There is none of this release ${where}. Call \`installOutbox\` in a migration, ` +
      'or pass the `schema` that it is in.',
    { cause: error },
  );
}
