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
const TABLES = [
  ...(['release', 'outbox', 'dead_letter', 'trigger', 'narrowed', 'authority', 'boot', 'declaration'] as const),
  ...(['partition', 'owed', 'layout'] as const),
];
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

/** `active`: a table hid rows from the query's own role. `forced`: the outbox may hide rows from its owner. */
export type MayHide = 'active' | 'forced';

/**
 * SQL for whether one of these tables hides rows from the current role, or the outbox may hide some from its owner (FORCE
 * ROW LEVEL SECURITY): MayHide as text, or null. Cheap enough for each poll; `checkHiddenTables` then looks closer.
 */
export function mayHideSql(options: OutboxOptions, tables: readonly OutboxTable[]): string {
  const named = (table: OutboxTable) => literal(`${qualifier(options)}gencache_${table}`);
  const active = tables.map((table) => `row_security_active(${named(table)})`);
  return `(case when ${active.join(' or ')} then 'active'
    when (select relforcerowsecurity from pg_class where oid = ${named('outbox')}::regclass) then 'forced' end)`;
}

/**
 * Throws HiddenRowsError where these tables hide rows, if `mayHide` says that they may; a query only then. A query that ran
 * while row level security was active has not seen all rows, even if it was switched off since: that throws, too, so that
 * the caller reads again.
 */
export async function checkHiddenTables(
  db: Knex,
  options: OutboxOptions,
  { mayHide, tables }: { readonly mayHide: MayHide | null; readonly tables?: readonly OutboxTable[] },
): Promise<void> {
  if (mayHide === null) return;
  const hidden = await findHiddenTables(db, options, tables);
  if (hidden.length > 0) throw new HiddenRowsError(hidden);
  if (mayHide === 'active') {
    throw new ConfigurationError(
      'Row level security was switched off while the outbox was read, so the read may lack rows. The next read sees all of them.',
    );
  }
}

/** Those of these tables that hide rows from the current role, or from their owner. One query. */
export async function findHiddenTables(
  db: Knex,
  options: OutboxOptions,
  tables: readonly OutboxTable[] = TABLES,
): Promise<HiddenTable[]> {
  return query(
    db,
    `select nspname as schema, relname as name
     from pg_class join pg_namespace on pg_namespace.oid = relnamespace join pg_roles on pg_roles.oid = relowner
     where pg_class.oid in (select to_regclass(? || name) from unnest(?::text[]) as name) and relrowsecurity and (
       row_security_active(pg_class.oid) or relforcerowsecurity and not rolsuper and not rolbypassrls)
     order by 2`,
    [`${qualifier(options)}gencache_`, tables],
  );
}
