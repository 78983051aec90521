import type { Knex } from 'knex';
import { ConfigurationError } from '../../errors/errors.js';
import { qualifiedName } from '../postgres/identifiers.js';
import { query } from '../postgres/query.js';
import { literal } from '../postgres/sql-text.js';
import { type OutboxOptions, qualifier } from './location.js';

/**
 * Row level security hides rows without a word: an event that a role may not see looks like an event that was bumped and
 * deleted. So each read of the outbox that draws a conclusion from absent rows asks for the tables that hide rows, in the
 * same query; a transaction of gencache's own sets `row_security = off` instead, with which PostgreSQL raises an error.
 */
const TABLES = ['release', 'outbox', 'dead_letter', 'trigger', 'narrowed', 'authority', 'boot'] as const;
type OutboxTable = (typeof TABLES)[number];

/** A table that hides rows. */
export interface HiddenTable {
  readonly schema: string;
  readonly name: string;
}

/** The outbox hides rows from this role, or from its owner, by whose rights triggers record. */
export class HiddenRowsError extends ConfigurationError {
  /** The message without the remedy. */
  readonly fact: string;
  readonly remedy: string;

  constructor(tables: readonly HiddenTable[]) {
    const fact =
      'Every role that uses the outbox, and its owner, must see all of its rows, but row level security hides rows of ' +
      `${tables.map(({ name }) => name).join(', ')}.`;
    const statements = tables.map((table) => `alter table ${qualifiedName(table)} disable row level security;`);
    const remedy =
      `As the owner of the outbox, run: ${statements.join(' ')} Or give the role BYPASSRLS, and switch FORCE off: ` +
      '`alter table ... no force row level security`.';
    super(`${fact} ${remedy}`);
    this.fact = fact;
    this.remedy = remedy;
  }
}

/**
 * SQL for those of these tables that hide rows from the current role, or from their owner (FORCE ROW LEVEL SECURITY): a JSON
 * list of `HiddenTable`, null if there is none.
 */
export function hiddenTablesSql(options: OutboxOptions, tables: readonly OutboxTable[]): string {
  const oids = tables.map((table) => `to_regclass(${literal(`${qualifier(options)}gencache_${table}`)})`);
  return `(
    select json_agg(json_build_object('schema', nspname, 'name', relname) order by relname)
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace join pg_roles on pg_roles.oid = relowner
    where pg_class.oid in (${oids.join(', ')}) and relrowsecurity and (
      row_security_active(pg_class.oid) or relforcerowsecurity and not rolsuper and not rolbypassrls))`;
}

/** Throws HiddenRowsError for the result of `hiddenTablesSql`, unless there is none. */
export function checkHiddenTables(tables: readonly HiddenTable[] | null): void {
  if (tables !== null) throw new HiddenRowsError(tables);
}

/** The tables of the outbox that hide rows; null if there is none. One query. */
export async function findHiddenTables(db: Knex, options: OutboxOptions): Promise<readonly HiddenTable[] | null> {
  const rows = await query<{ hidden: HiddenTable[] | null }>(
    db,
    `select ${hiddenTablesSql(options, TABLES)} as hidden`,
  );
  return rows[0]!.hidden;
}
