import { ConfigurationError } from '../../errors.js';
import type { OutboxOptions } from './place.js';

/** PostgreSQL's words for a table, or a schema, that is not there. */
const UNDEFINED = new Set(['42P01', '3F000']);

/** The error itself; or, if what is missing is the outbox, one that says so in a sentence. */
export function explained(error: unknown, { schema }: OutboxOptions): unknown {
  const { code, message } = error as { code?: unknown; message?: unknown };
  if (!UNDEFINED.has(String(code)) || !/gencache_|schema/.test(String(message))) return error;
  const where = schema === undefined ? 'on the search path of this connection' : `in the schema "${schema}"`;
  return new ConfigurationError(
    `What changes is recorded in an outbox. There is none of this release ${where}. Call \`installOutbox\` in a migration, ` +
      'or pass the `schema` that it is in.',
    { cause: error },
  );
}
