import { quoted } from '../postgres/identifiers.js';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';

/** Where the outbox is. */
export interface OutboxOptions {
  /** The schema of its tables. Default: where the connection's search path leads. */
  readonly schema?: string;
}

/** What stands before the name of a table: `"audit".`, or nothing. Throws ConfigurationError. */
export function qualifier({ schema }: OutboxOptions): string {
  if (schema === undefined) return '';
  // Knex takes the first two for bindings, wherever they stand in a statement. PostgreSQL cuts what is longer.
  if (typeof schema !== 'string' || !/^[^?:\\\0]+$/.test(schema) || Buffer.byteLength(schema) > 63) {
    throw new ConfigurationError(
      'The schema of an outbox has a name of 1 to 63 bytes, without "?", ":" and "\\". ' +
        `Got ${describe(schema)}. Choose another, or leave it out for the first of the search path.`,
    );
  }
  return `${quoted(schema)}.`;
}
