import type { Knex } from 'knex';
import { findTable, type Table } from '../postgres/catalog.js';
import { displayName } from '../postgres/identifiers.js';
import { query } from '../postgres/query.js';

/** A relation that a statement reads. */
export interface ReadRelation {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  /** `app.product`, for messages. */
  readonly shown: string;
  readonly kind: string;
  readonly temporary: boolean;
  /** Whether it belongs to PostgreSQL itself. */
  readonly system: boolean;
  /** Whether the search path finds it, so that its name needs no schema. */
  readonly visible: boolean;
  readonly hidesRows: boolean;
  /** The tables that it is a partition or an inheritance child of, at any depth, and itself. */
  readonly lineage: readonly string[];
  /** Names of its columns by their numbers. */
  readonly columns: ReadonlyMap<number, string>;
  /** With the kinds of ids that columns can hold; undefined for relations without triggers. */
  readonly table: Table | undefined;
}

/** Describes relations. A query, and three for each table. */
export async function describeRelations(db: Knex, oids: readonly string[]): Promise<Map<string, ReadRelation>> {
  const rows = await query<Omit<ReadRelation, 'columns' | 'shown' | 'table'> & { columns: [number, string][] }>(
    db,
    `select class.oid::text as oid, nspname as schema, relname as name, relkind as kind,
       relpersistence = 't' as temporary, nspname in ('pg_catalog', 'information_schema', 'pg_toast') as system,
       pg_table_is_visible(class.oid) as visible, row_security_active(class.oid) as "hidesRows",
       (with recursive above as (
          select class.oid as oid union select inhparent from above join pg_inherits on inhrelid = above.oid
        ) select json_agg(oid::text) from above) as lineage,
       (select coalesce(json_agg(json_build_array(attnum, attname) order by attnum), '[]') from pg_attribute
        where attrelid = class.oid and attnum > 0 and not attisdropped) as columns
     from pg_class class join pg_namespace space on space.oid = relnamespace where class.oid = any(?::oid[])`,
    [oids],
  );
  const relations = new Map<string, ReadRelation>();
  for (const row of rows) {
    const watchable = (row.kind === 'r' || row.kind === 'p') && !row.system;
    const table = watchable ? await findTable(db, row.schema, row.name) : undefined;
    const shown = displayName(row.visible ? null : row.schema, row.name);
    relations.set(row.oid, { ...row, columns: new Map(row.columns), shown, table });
  }
  return relations;
}

export interface CalledFunction {
  readonly oid: string;
  /** `app.price(integer)` */
  readonly name: string;
  /** `i` immutable, `s` stable, `v` volatile. */
  readonly volatility: string;
  readonly builtIn: boolean;
}

/** Describes functions. One query. */
export async function describeFunctions(db: Knex, oids: readonly string[]): Promise<CalledFunction[]> {
  return query<CalledFunction>(
    db,
    `select oid::text as oid, oid::regprocedure::text as name, provolatile as volatility,
       pronamespace = 'pg_catalog'::regnamespace and oid < 16384 as "builtIn"
     from pg_proc where oid = any(?::oid[]) order by 2`,
    [oids],
  );
}

/** Those of the operators that are called `=`. One query. */
export async function equalities(db: Knex, operators: readonly string[]): Promise<Set<string>> {
  const rows = await query<{ oid: string }>(
    db,
    `select oid::text as oid from pg_operator where oid = any(?::oid[]) and oprname = '='`,
    [operators],
  );
  return new Set(rows.map(({ oid }) => oid));
}

export interface ForeignKey {
  readonly table: string;
  readonly references: string;
  /** Numbers of the columns, and of those that they refer to. */
  readonly columns: readonly number[];
  readonly referenced: readonly number[];
}

/** The foreign keys of tables, which all rows keep. One query. */
export async function foreignKeys(db: Knex, oids: readonly string[]): Promise<ForeignKey[]> {
  return query<ForeignKey>(
    db,
    `select conrelid::text as table, confrelid::text as references, to_json(conkey) as columns, to_json(confkey) as referenced
     from pg_constraint where contype = 'f' and convalidated and conrelid = any(?::oid[]) order by conname`,
    [oids],
  );
}
