import type { Knex } from 'knex';
import { ConfigurationError } from '../../errors/errors.js';
import type { OutboxOptions } from './location.js';
import { quoted } from '../postgres/identifiers.js';
import { findRelation } from '../postgres/catalog.js';

/** The outbox that is there: triggers name it in full, since they run under anybody's search path. */
export interface InstalledOutbox {
  readonly schema: string;
  /** What stands before the name of its tables and functions: `"audit".` */
  readonly at: string;
}

/** Finds the outbox; undefined if there is none. One query. */
export async function findInstalledOutbox(db: Knex, options: OutboxOptions = {}): Promise<InstalledOutbox | undefined> {
  const relation = await findRelation(db, options.schema, 'gencache_trigger');
  return relation === undefined ? undefined : { schema: relation.schema, at: `${quoted(relation.schema)}.` };
}

/** Finds the outbox. Throws ConfigurationError if there is none; `otherwise`: how its schema is named here. One query. */
export async function requireInstalledOutbox(
  db: Knex,
  options: OutboxOptions = {},
  otherwise = 'name its schema',
): Promise<InstalledOutbox> {
  const outbox = await findInstalledOutbox(db, options);
  if (outbox !== undefined) return outbox;
  const where = options.schema === undefined ? 'on the search path' : `in schema ${quoted(options.schema)}`;
  throw new ConfigurationError(
    `Triggers record into the outbox. There is none ${where}. Call \`installOutbox\` in an earlier migration, or ${otherwise}.`,
  );
}
