import type { Knex } from 'knex';
import { coveredByTrigger } from '../../knex/migrations/migrations-trigger.js';
import { type OutboxOptions, qualifier } from '../../knex/outbox/location.js';
import { findRelation, type Relation } from '../../knex/postgres/catalog.js';
import { checkTriggers } from '../../knex/triggers/check-triggers.js';
import { displayName } from '../../knex/postgres/identifiers.js';
import { explain } from '../explain.js';
import { broken, type Finding, ok, warn } from './finding.js';

/** What is known of what records changes. */
export interface TriggerFacts {
  /** How many tables are watched. */
  readonly tables: number;
  /** Whether all that was installed is there, and switched on. */
  readonly sound: boolean;
  /** Whether migrations are recorded, or there are none. */
  readonly migrations: boolean;
  /** Tables beside the watched ones whose changes bump nothing, a few. */
  readonly unwatched: readonly string[];
}

interface Row {
  readonly schema: string;
  readonly table: string;
  readonly kind: string | null;
  readonly subscriber: boolean;
}

const UNWATCHED_MAX = 10;

/** Looks at the triggers of a cache. About five queries, and some for each table. */
export async function lookAtTriggers(
  db: Knex,
  cache: string,
  outbox: OutboxOptions,
): Promise<{ readonly findings: Finding[]; readonly facts: TriggerFacts }> {
  const { rows } = await db.raw<{ rows: Row[] }>(
    `select table_schema as schema, table_name as table, definition->>'kind' as kind,
       coalesce((definition->>'subscriber')::boolean, false) as subscriber
     from ${qualifier(outbox)}gencache_trigger where cache = ? order by 1, 2`,
    [cache],
  );
  const own = rows.filter(({ kind }) => kind === null);
  const tables = await lookAtTables(db, cache, outbox, own);
  const switches = await lookAtSwitches(db);
  const migrations = await lookAtMigrations(db, cache, rows);
  const sound = [...tables, ...switches].every(({ status }) => status !== 'broken');
  return {
    findings: [...tables, ...switches, ...migrations],
    facts: {
      tables: new Set(own.map(({ schema, table }) => displayName(schema, table))).size,
      sound,
      migrations: migrations.every(({ status }) => status === 'ok'),
      unwatched: own.length > 0 ? await unwatched(db, own) : [],
    },
  };
}

async function lookAtTables(db: Knex, cache: string, outbox: OutboxOptions, own: readonly Row[]): Promise<Finding[]> {
  if (own.length === 0) {
    const remedy =
      'For step 3, call `onChangeOf(db, table, { cache }).bump(...).install()` in a migration, for each table.';
    return [warn('triggers', 'none: writers that do not bump are not noticed', remedy)];
  }
  let problems;
  try {
    problems = (await checkTriggers(db, outbox)).filter((problem) => problem.cache === cache);
  } catch (error) {
    return [broken('triggers', `they can't be checked: ${explain(error)}`, 'Run `gencache triggers check`.')];
  }
  // A foreign partition can't be watched: whoever has one knows, and need not be told at each deployment.
  const findings = problems.map(({ problem, table, message, remedy }) =>
    (problem === 'foreign partition' ? warn : broken)('triggers', `on ${table}: ${message}`, remedy),
  );
  const wrong = new Set(problems.map(({ table }) => table));
  const good = [...new Set(own.map(({ schema, table }) => displayName(schema, table)))].filter(
    (name) => !wrong.has(name),
  );
  if (good.length > 0) findings.push(ok('triggers', `sound on ${good.join(', ')}`));
  return [...findings, ...(await lookAtSubscriptions(db, own))];
}

/** Logical replication fires row-level triggers alone. `written`: what a subscription writes to, or a table above it. */
async function lookAtSubscriptions(db: Knex, own: readonly Row[]): Promise<Finding[]> {
  const { rows } = await db.raw<{ rows: { schema: string; name: string }[] }>(
    `with recursive written as (
       select srrelid as oid from pg_subscription_rel
       union select inhparent from pg_inherits join written on inhrelid = written.oid
     )
     select nspname as schema, relname as name
     from written join pg_class on pg_class.oid = written.oid join pg_namespace on pg_namespace.oid = relnamespace`,
  );
  return own
    .filter((row) => !row.subscriber && rows.some(({ schema, name }) => schema === row.schema && name === row.table))
    .map(({ schema, table }) =>
      broken(
        'triggers',
        `${displayName(schema, table)} is written by logical replication, for which statement triggers do not fire`,
        'Install them with `subscriber: true`.',
      ),
    );
}

/** `gencache.events` is meant for a session: set for a role or a database it silences every writer there. */
async function lookAtSwitches(db: Knex): Promise<Finding[]> {
  const { rows } = await db.raw<{ rows: { role: string | null; database: string | null; own: boolean }[] }>(
    `select rolname as role, datname as database, false as own
     from pg_db_role_setting
     left join pg_database on pg_database.oid = setdatabase
     left join pg_roles on pg_roles.oid = setrole
     where 'gencache.events=off' = any(setconfig) and (setdatabase = 0 or datname = current_database())
     union all
     select null, null, true where current_setting('gencache.events', true) = 'off'`,
  );
  const [first] = rows;
  if (first === undefined) return [];
  const { role, database, own } = first;
  const where = own ? 'here' : `for ${role ?? 'every role'} in ${database ?? 'every database'}`;
  return [
    broken(
      'events',
      `gencache.events is off ${where}: no change is recorded there`,
      'Reset it (`alter role ... reset gencache.events`, or of the database), and bump global after.',
    ),
  ];
}

async function lookAtMigrations(db: Knex, cache: string, rows: readonly Row[]): Promise<Finding[]> {
  const lists = new Map<string, Relation | undefined>();
  for (const { kind, schema, table } of rows) {
    if (kind === 'migrations') lists.set(displayName(schema, table), await findRelation(db, schema, table));
  }
  for (const list of await migrationLists(db, rows)) lists.set(displayName(list.schema, list.name), list);
  if (lists.size === 0) return [ok('migrations', 'there is no list of Knex migrations')];
  const findings: Finding[] = [];
  for (const [name, list] of lists) {
    const covered = list === undefined || (await coveredByTrigger(db, [cache], list)).has(cache);
    findings.push(
      covered
        ? ok('migrations', `those in ${name} are recorded`)
        : warn(
            'migrations',
            `those in ${name} are recorded by Knex's hooks at most, which can't be seen from here`,
            'Call `installMigrationsTrigger(db, { cache })` in a migration: it covers whoever writes that list.',
          ),
    );
  }
  return findings;
}

/** Lists of Knex migrations where the search path leads, or beside the watched tables, by their columns. */
async function migrationLists(db: Knex, rows: readonly Row[]): Promise<Relation[]> {
  const { rows: found } = await db.raw<{ rows: { schema: string; name: string }[] }>(
    `select nspname as schema, relname as name
     from pg_class join pg_namespace on pg_namespace.oid = relnamespace
     where relkind in ('r', 'p') and nspname = any(current_schemas(false) || ?::name[])
       and (select count(*) from pg_attribute
            where attrelid = pg_class.oid and attname in ('name', 'batch', 'migration_time')) = 3
     order by 1, 2`,
    [rows.map(({ schema }) => schema)] as unknown as Knex.RawBinding[],
  );
  const lists = await Promise.all(found.map(({ schema, name }) => findRelation(db, schema, name)));
  return lists.filter((list) => list !== undefined);
}

/** Tables in the schemas of the watched ones that no trigger of ours is on. One query. */
async function unwatched(db: Knex, own: readonly Row[]): Promise<string[]> {
  const { rows } = await db.raw<{ rows: { schema: string; name: string }[] }>(
    `select nspname as schema, relname as name
     from pg_class join pg_namespace on pg_namespace.oid = relnamespace
     where relkind in ('r', 'p') and not relispartition and nspname = any(?::name[])
       and relname not like 'gencache\\_%' and relname not like '%\\_migrations\\_lock'
       and not exists (select from pg_trigger where tgrelid = pg_class.oid and tgname like 'gencache\\_%')
     order by 1, 2 limit ?`,
    [[...new Set(own.map(({ schema }) => schema))], UNWATCHED_MAX + 1] as unknown as Knex.RawBinding[],
  );
  const names = rows.map(({ schema, name }) => displayName(schema, name));
  return names.length > UNWATCHED_MAX ? [...names.slice(0, UNWATCHED_MAX), '...'] : names;
}
