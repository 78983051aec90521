import { quoted } from '../postgres/identifiers.js';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';

/** Location of the outbox. */
export interface OutboxOptions {
  /** The schema of its tables. Default: the first on the connection's search path that has them. */
  readonly schema?: string;
}

/** The prefix of the names of its tables: `"audit".`, or nothing. Throws ConfigurationError. */
export function qualifier({ schema }: OutboxOptions): string {
  if (schema === undefined) return '';
  // Knex takes ? and : for bindings anywhere in a statement. PostgreSQL truncates longer names.
  if (typeof schema !== 'string' || !/^[^?:\\\0]+$/.test(schema) || Buffer.byteLength(schema) > 63) {
    throw new ConfigurationError(
      'The `schema` of an outbox must be a name of 1 to 63 bytes without "?", ":" and "\\", but got ' +
        `${describe(schema)}. Choose another name, or leave it out for the search path.`,
    );
  }
  return `${quoted(schema)}.`;
}
