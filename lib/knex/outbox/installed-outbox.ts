import type { Knex } from 'knex';
import type { OutboxOptions } from './location.js';
import { quoted } from '../postgres/identifiers.js';
import { findRelation } from '../postgres/catalog.js';
import { HiddenRowsError } from './row-security.js';
import { missingOutbox } from './missing-outbox.js';

/** The installed outbox. Triggers name it in full, since they run under the search path of any writer. */
export interface InstalledOutbox {
  readonly schema: string;
  /** The prefix of the names of its tables and functions: `"audit".` */
  readonly at: string;
}

/** Finds the outbox; undefined if there is none. One query. Throws HiddenRowsError. */
export async function findInstalledOutbox(db: Knex, options: OutboxOptions = {}): Promise<InstalledOutbox | undefined> {
  const relation = await findRelation(db, options.schema, 'gencache_trigger');
  if (relation?.hidesRows === true) throw new HiddenRowsError([relation]);
  return relation === undefined ? undefined : { schema: relation.schema, at: `${quoted(relation.schema)}.` };
}

/** Finds the outbox that triggers record into. `option`: the caller's option for its schema. One query. Throws ConfigurationError. */
export async function requireInstalledOutbox(
  db: Knex,
  options: OutboxOptions = {},
  option = 'schema',
): Promise<InstalledOutbox> {
  const outbox = await findInstalledOutbox(db, options);
  if (outbox === undefined) throw missingOutbox(options, { use: 'Triggers record there', option });
  return outbox;
}
