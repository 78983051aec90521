import { ConfigurationError } from '../../errors/errors.js';
import { quoted } from '../postgres/identifiers.js';
import { isSqlstate, serverMessageOf } from '../postgres/sqlstate.js';
import type { OutboxOptions } from './location.js';

/** A table of the outbox in a message of the server, in any language; not a schema of such a name. */
export const OUTBOX_TABLE = /(?:^|[^A-Za-z0-9_])gencache_[a-z_]+(?![A-Za-z0-9_.])/;

/** Whether a query failed because there is no outbox at its location, or one of an older release. */
export function isOutboxMissing(error: unknown): boolean {
  return error instanceof Error && isSqlstate(error, 'undefined table') && OUTBOX_TABLE.test(serverMessageOf(error));
}

/** The error of a query; where the outbox was missing, a ConfigurationError that says so. */
export function explainMissingOutbox(error: unknown, outbox: OutboxOptions): unknown {
  if (!isOutboxMissing(error)) return error;
  return missingOutbox(outbox, { use: 'The cache records changes there', cause: error });
}

/** `use`: what needs the outbox, as a sentence. `option`: the option that holds its schema. */
export function missingOutbox(
  { schema }: OutboxOptions,
  { use, option = 'schema', cause }: { readonly use: string; readonly option?: string; readonly cause?: unknown },
): ConfigurationError {
  const where = schema === undefined ? 'on the search path of this connection' : `in the schema ${quoted(schema)}`;
  return new ConfigurationError(
    `There is no outbox of this release ${where}. ${use}. Call \`installOutbox\` in a migration, or pass the ` +
      `\`${option}\` it is in.`,
    { cause },
  );
}
