import type { Knex } from 'knex';
import { quoted } from './identifiers.js';
import { query } from './query.js';

/** A table in PostgreSQL's catalog. */
export interface Relation {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  /** `r` a table, `p` a partitioned one, `f` a foreign one, `v` a view, ... */
  readonly kind: string;
  readonly temporary: boolean;
  /** Whether row level security hides rows from the current role. */
  readonly hidesRows: boolean;
}

/** The kind of id that a column's values can be; `other`: not an id. */
export type ColumnKind = 'integer' | 'text' | 'enum' | 'uuid' | 'other';

export interface Column {
  readonly name: string;
  readonly kind: ColumnKind;
  /** For messages, an enumeration with its schema: `bigint`, `app.colour`. */
  readonly type: string;
  /** An enumeration in SQL, always in quotes, whatever the session's settings: `"app"."colour"`; null for other kinds. */
  readonly enumeration: string | null;
  /** Whether its operators are built in, so that a fixed search_path finds them. */
  readonly native: boolean;
  /** Whether values that are equal by `=` are equal byte for byte, so that a comparison needs no image. */
  readonly exact: boolean;
  /** SQL of the row's columns, for a value that is computed from them and is no column of the table. */
  readonly expression?: string;
}

export interface Table extends Relation {
  readonly columns: ReadonlyMap<string, Column>;
  /** Empty without a primary key. */
  readonly primaryKey: readonly string[];
}

/** A trigger that calls a function of gencache, or has the name of a trigger of gencache. */
export interface InstalledTrigger {
  readonly relation: Relation;
  readonly name: string;
  /** `O` origin and local (the default), `A` always, `R` replica, `D` disabled. */
  readonly enabled: string;
  readonly type: number;
  readonly function: string;
}

export interface InstalledFunction {
  readonly name: string;
  readonly source: string;
  readonly definer: boolean;
  /** Its `set` clauses: `jit=off`. */
  readonly settings: readonly string[];
}

const RELATION = `
  class.oid::text as oid, space.nspname as schema, class.relname as name, class.relkind as kind,
  class.relpersistence = 't' as temporary, row_security_active(class.oid) as "hidesRows"`;

/** The table of that name, on the search path without a schema; undefined if there is none. One query. */
export async function findRelation(
  db: Knex,
  schema: string | null | undefined,
  table: string,
): Promise<Relation | undefined> {
  const name = schema === null || schema === undefined ? quoted(table) : `${quoted(schema)}.${quoted(table)}`;
  const rows = await query<Relation>(
    db,
    `select ${RELATION} from pg_class class join pg_namespace space on space.oid = class.relnamespace
     where class.oid = to_regclass(?)`,
    [name],
  );
  return rows[0];
}

/** A table with its columns and primary key; undefined if there is none. Three queries. */
export async function findTable(
  db: Knex,
  schema: string | null | undefined,
  table: string,
): Promise<Table | undefined> {
  const relation = await findRelation(db, schema, table);
  if (relation === undefined) return undefined;
  const columns = await query<Column>(db, COLUMNS, [relation.oid]);
  const keys = await query<{ name: string }>(db, PRIMARY_KEY, [relation.oid]);
  return {
    ...relation,
    columns: new Map(columns.map((column) => [column.name, column])),
    primaryKey: keys.map(({ name }) => name),
  };
}

/** The properties of a type, as those of a column without a name. One query. */
export async function typeOf(db: Knex, oid: string): Promise<Column> {
  const rows = await query<Column>(
    db,
    `with recursive typed as (
       select ''::name as attname, 1 as attnum, typcollation as attcollation, oid as base, oid as own from pg_type
       where oid = ?::oid
       ${TYPED}`,
    [oid],
  );
  return rows[0]!;
}

/**
 * The rest of a query of types: those below domains, and their properties. A domain has the kind of its base type. It has the
 * operators of its base type as well, but over an enumeration: their parameter is `anyenum`, which takes no domain.
 */
const TYPED = `union all
    select attname, attnum, attcollation, type.typbasetype, own
    from typed join pg_type type on type.oid = typed.base and type.typtype = 'd'
  )
  select typed.attname as name,
    case when type.typtype = 'e' then format('%s.%I', type.typnamespace::regnamespace, type.typname)
      else format_type(typed.base, null) end as type,
    case when type.typtype = 'e' then
      format('"%s"."%s"', replace(space.nspname, '"', '""'), replace(type.typname, '"', '""')) end as enumeration,
    type.typnamespace = 'pg_catalog'::regnamespace or type.typtype = 'e' and typed.own = type.oid as native,
    type.typtype = 'e' and typed.own = type.oid or type.oid = any('{bool,int2,int4,int8,oid,uuid,bytea,date,timestamp,timestamptz}'::regtype[])
      or type.oid = any('{text,varchar}'::regtype[]) and rules.collisdeterministic as exact,
    case
      when type.oid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) then 'integer'
      when type.oid in ('text'::regtype, 'varchar'::regtype) then 'text'
      when type.oid = 'uuid'::regtype then 'uuid'
      when type.typtype = 'e' then 'enum'
      else 'other'
    end as kind
  from typed join pg_type type on type.oid = typed.base and type.typtype <> 'd'
  join pg_namespace space on space.oid = type.typnamespace
  left join pg_collation rules on rules.oid = typed.attcollation
  order by typed.attnum`;

/** `?`: a table. */
const COLUMNS = `
  with recursive typed as (
    select attname, attnum, attcollation, atttypid as base, atttypid as own from pg_attribute
    where attrelid = ?::oid and attnum > 0 and not attisdropped
    ${TYPED}`;

/** `?`: a table. */
const PRIMARY_KEY = `
  select attname as name
  from pg_index
  cross join lateral unnest(indkey::int2[]) with ordinality as key (attnum, position)
  join pg_attribute on attrelid = indrelid and pg_attribute.attnum = key.attnum
  where indrelid = ?::oid and indisprimary and key.position <= indnkeyatts
  order by key.position`;

/** The table itself, its partitions and inheritance children, at any depth, by oid. One query. */
export async function familyOf(db: Knex, oid: string): Promise<Relation[]> {
  const rows = await query<Relation>(
    db,
    `with recursive family as (
       select ?::oid as oid
       union
       select inhrelid from pg_inherits join family on inhparent = family.oid
     )
     select ${RELATION} from family join pg_class class on class.oid = family.oid
     join pg_namespace space on space.oid = class.relnamespace order by class.oid`,
    [oid],
  );
  return rows;
}

/** A foreign key that every row of its table satisfies. */
export interface ForeignKey {
  readonly schema: string;
  readonly table: string;
  readonly columns: readonly string[];
  readonly toSchema: string;
  readonly toTable: string;
  /** In the order of `columns`. */
  readonly toColumns: readonly string[];
  /**
   * Whether no row can take the place of one that is referred to, without a change of the rows that refer to it. With NO
   * ACTION, the default, a row may be deleted and another one with its key be inserted, in one statement or, if the
   * constraint is deferred, in one transaction.
   */
  readonly replaces: 'never' | 'by key';
}

/**
 * The validated foreign keys between tables of these schemas. Without those of inheritance parents, whose children they do
 * not bind. One query.
 */
export async function foreignKeys(db: Knex, schemas: readonly string[]): Promise<ForeignKey[]> {
  return query<ForeignKey>(
    db,
    `select space.nspname as schema, class.relname as table, "toSpace".nspname as "toSchema", "to".relname as "toTable",
       case when confdeltype in ('r', 'c', 'n') and confupdtype in ('r', 'c', 'n') then 'never' else 'by key' end as replaces,
       (select to_json(array_agg(attname order by place)) from unnest(conkey) with ordinality as key (number, place)
        join pg_attribute on attrelid = conrelid and attnum = number) as columns,
       (select to_json(array_agg(attname order by place)) from unnest(confkey) with ordinality as key (number, place)
        join pg_attribute on attrelid = confrelid and attnum = number) as "toColumns"
     from pg_constraint
     join pg_class class on class.oid = conrelid join pg_namespace space on space.oid = class.relnamespace
     join pg_class "to" on "to".oid = confrelid join pg_namespace "toSpace" on "toSpace".oid = "to".relnamespace
     where contype = 'f' and convalidated and space.nspname = any(?) and "toSpace".nspname = any(?)
       and not exists (select from pg_inherits where inhparent = class.oid and class.relkind = 'r'
                       or inhparent = "to".oid and "to".relkind = 'r')
       -- enforced, by triggers that nothing has disabled
       and not exists (select from pg_trigger where tgconstraint = pg_constraint.oid and tgenabled not in ('O', 'A'))`,
    [schemas as string[], schemas as string[]],
  );
}

/** The triggers of these names, on any table. One query. */
export async function triggersNamed(db: Knex, names: readonly string[]): Promise<InstalledTrigger[]> {
  const rows = await query<InstalledTrigger & Relation & { trigger: string; calls: string }>(
    db,
    `select tgname as trigger, tgenabled as enabled, tgtype as type,
       proname as calls, ${RELATION}
     from pg_trigger installed
     join pg_proc on pg_proc.oid = tgfoid
     join pg_class class on class.oid = tgrelid
     join pg_namespace space on space.oid = class.relnamespace
     where tgname = any(?) and not tgisinternal
     order by class.oid, tgname`,
    [names as string[]],
  );
  return rows.map(({ oid, schema, name, kind, temporary, hidesRows, trigger, calls, enabled, type }) => ({
    relation: { oid, schema, name, kind, temporary, hidesRows },
    name: trigger,
    enabled,
    type,
    function: calls,
  }));
}

/** The functions of these names in the schema. One query. */
export async function functionsNamed(
  db: Knex,
  schema: string,
  names: readonly string[],
): Promise<Map<string, InstalledFunction>> {
  const rows = await query<InstalledFunction>(
    db,
    `select proname as name, prosrc as source, prosecdef as definer,
       to_json(coalesce(proconfig, '{}')) as settings
     from pg_proc join pg_namespace space on space.oid = pronamespace
     where nspname = ? and proname = any(?)`,
    [schema, names as string[]],
  );
  return new Map(rows.map((row) => [row.name, row]));
}

/** The functions of the schema whose names match a regular expression. One query. */
export async function functionsLike(db: Knex, schema: string, pattern: string): Promise<string[]> {
  const rows = await query<{ name: string }>(
    db,
    `select distinct proname as name from pg_proc join pg_namespace space on space.oid = pronamespace
     where nspname = ? and proname ~ ? order by 1`,
    [schema, pattern],
  );
  return rows.map(({ name }) => name);
}

/** The tables with triggers that call these functions of the schema. One query. */
export async function tablesCalling(db: Knex, schema: string, functions: readonly string[]): Promise<Relation[]> {
  return query(
    db,
    `select distinct ${RELATION}
     from pg_trigger installed
     join pg_proc on pg_proc.oid = tgfoid and proname = any(?)
     join pg_namespace home on home.oid = pronamespace and home.nspname = ?
     join pg_class class on class.oid = tgrelid
     join pg_namespace space on space.oid = class.relnamespace`,
    [functions, schema],
  );
}
