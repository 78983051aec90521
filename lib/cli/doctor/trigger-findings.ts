import type { Knex } from 'knex';
import { findMigrationLists } from '../../knex/migrations/migration-lists.js';
import { coveredByTrigger } from '../../knex/migrations/migrations-trigger.js';
import { type OutboxOptions, qualifier } from '../../knex/outbox/location.js';
import { findRelation, type Relation } from '../../knex/postgres/catalog.js';
import { PublishedCaches } from '../../knex/outbox/published-caches.js';
import { checkTriggers } from '../../knex/triggers/check-triggers.js';
import { displayName } from '../../knex/postgres/identifiers.js';
import { explainError } from '../explain-error.js';
import { declarationFindings } from './declaration-findings.js';
import { broken, type Finding, ok, warn } from './finding.js';
import { query } from '../../knex/postgres/query.js';

/** The facts about the triggers of a cache. */
export interface TriggerFacts {
  /** Number of tables with triggers. */
  readonly tables: number;
  /** Whether every installed trigger exists and is enabled. */
  readonly areSound: boolean;
  /** Whether migrations are recorded, or there are none. */
  readonly coverMigrations: boolean;
  /** Tables without triggers in the schemas of those with triggers, 10 at most. */
  readonly unwatched: readonly string[];
}

interface RegisteredTrigger {
  readonly schema: string;
  readonly table: string;
  readonly kind: string | null;
  readonly subscriber: boolean;
}

const UNWATCHED_MAX = 10;

/** Checks the triggers of a cache. About five queries, and a few more for each table. */
export async function checkCacheTriggers(
  db: Knex,
  cache: string,
  outbox: OutboxOptions,
): Promise<{ readonly findings: Finding[]; readonly facts: TriggerFacts }> {
  const rows = await query<RegisteredTrigger>(
    db,
    `select table_schema as schema, table_name as table, definition->>'kind' as kind,
       coalesce((definition->>'subscriber')::boolean, false) as subscriber
     from ${qualifier(outbox)}gencache_trigger where cache = ? order by 1, 2`,
    [cache],
  );
  const own = rows.filter(({ kind }) => kind === null);
  const tables = await tableFindings(db, cache, outbox, own);
  const switches = await switchFindings(db);
  const published = await PublishedCaches.read(db, outbox);
  const namespaces = declarationFindings(published, cache, { hasTriggers: rows.length > 0 });
  const migrations = await migrationFindings(db, cache, rows);
  const areSound = [...tables, ...namespaces, ...switches].every(({ status }) => status !== 'broken');
  return {
    findings: [...namespaces, ...tables, ...switches, ...migrations],
    facts: {
      tables: new Set(own.map(({ schema, table }) => displayName(schema, table))).size,
      areSound,
      coverMigrations: migrations.every(({ status }) => status === 'ok'),
      unwatched: own.length > 0 ? await unwatchedTables(db, own) : [],
    },
  };
}

async function tableFindings(
  db: Knex,
  cache: string,
  outbox: OutboxOptions,
  own: readonly RegisteredTrigger[],
): Promise<Finding[]> {
  if (own.length === 0) {
    const remedy =
      'For step 3, call `onChangeOf(db, table, { cache }).bump(...).install()` in a migration, for each table.';
    return [warn('triggers', 'there are no triggers: a change by a writer that does not bump goes unnoticed', remedy)];
  }
  let problems;
  try {
    problems = (await checkTriggers(db, outbox)).filter((problem) => problem.cache === cache);
  } catch (error) {
    return [
      broken('triggers', `the triggers can't be checked: ${explainError(error)}`, 'Run `gencache triggers check`.'),
    ];
  }
  // A foreign partition can't have triggers, so it is no reason to fail each deployment.
  // The finding about namespaces tells of an unknown cache once.
  const told = problems.filter(({ problem }) => problem !== 'cache not published');
  const findings = told.map(({ problem, severity, table, message, remedy }) =>
    (problem === 'foreign partition' || severity === 'warn' ? warn : broken)(
      'triggers',
      `${table}: ${message}`,
      remedy,
    ),
  );
  const wrong = new Set(problems.map(({ table }) => table));
  const sound = [...new Set(own.map(({ schema, table }) => displayName(schema, table)))].filter(
    (name) => !wrong.has(name),
  );
  if (sound.length > 0) findings.push(ok('triggers', `the triggers are sound on ${sound.join(', ')}`));
  return [...findings, ...(await subscriptionFindings(db, own))];
}

/** Logical replication fires row-level triggers alone. `written`: the tables of subscriptions, and their ancestors. */
async function subscriptionFindings(db: Knex, own: readonly RegisteredTrigger[]): Promise<Finding[]> {
  const rows = await query<{ schema: string; name: string }>(
    db,
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
        `${displayName(schema, table)}: logical replication writes to the table, and fires no statement triggers`,
        'Install its triggers with `subscriber: true`.',
      ),
    );
}

/** `gencache.events` is a setting for a session. Set for a role or a database, it silences every writer there. */
async function switchFindings(db: Knex): Promise<Finding[]> {
  const rows = await query<{ role: string | null; database: string | null; own: boolean }>(
    db,
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
  const where = own ? 'in this session' : `for ${role ?? 'every role'} in ${database ?? 'every database'}`;
  return [
    broken(
      'gencache.events',
      `gencache.events is off ${where}: triggers record nothing there`,
      'Reset it (`alter role ... reset gencache.events`, or `alter database ...`), and bump global afterwards.',
    ),
  ];
}

async function migrationFindings(db: Knex, cache: string, rows: readonly RegisteredTrigger[]): Promise<Finding[]> {
  const lists = new Map<string, { readonly relation: Relation | undefined; readonly tool: string | undefined }>();
  for (const { kind, schema, table } of rows) {
    if (kind !== 'migrations') continue;
    lists.set(displayName(schema, table), { relation: await findRelation(db, schema, table), tool: undefined });
  }
  for (const { relation, tool } of await findMigrationLists(
    db,
    rows.map(({ schema }) => schema),
  )) {
    lists.set(displayName(relation.schema, relation.name), { relation, tool });
  }
  if (lists.size === 0) return [ok('migrations', 'there is no list of migrations of a known tool')];
  const findings: Finding[] = [];
  for (const [name, { relation, tool }] of lists) {
    const covered = relation === undefined || (await coveredByTrigger(db, [cache], relation)).has(cache);
    if (covered) findings.push(ok('migrations', `a trigger records the migrations in ${name}`));
    else if (tool === 'Knex') findings.push(warn('migrations', unrecordedByKnex(name), KNEX_REMEDY));
    else findings.push(warn('migrations', unrecorded(name, tool), remedyFor(relation)));
  }
  return findings;
}

function unrecordedByKnex(name: string): string {
  return `no trigger records the migrations in ${name}; Knex's hooks may, which the doctor can not see`;
}

const KNEX_REMEDY =
  'Call `installMigrationsTrigger(db, { cache })` in a migration: it covers every program that migrates.';

function unrecorded(name: string, tool: string | undefined): string {
  return `no trigger records the migrations in ${name}${tool === undefined ? '' : `, a list of ${tool}`}`;
}

function remedyFor({ schema, name }: Relation): string {
  return (
    `Call \`installMigrationsTrigger(db, { cache, table: '${name}', tableSchema: '${schema}' })\`, or after each migration ` +
    'bump by hand the scopes that it changes.'
  );
}

/** Tables without triggers in the schemas of those with triggers. One query. */
async function unwatchedTables(db: Knex, own: readonly RegisteredTrigger[]): Promise<string[]> {
  const rows = await query<{ schema: string; name: string }>(
    db,
    `select nspname as schema, relname as name
     from pg_class join pg_namespace on pg_namespace.oid = relnamespace
     where relkind in ('r', 'p') and not relispartition and nspname = any(?::name[])
       and left(relname, 9) <> 'gencache_' and right(relname, 16) <> '_migrations_lock'
       and not exists (select from pg_trigger where tgrelid = pg_class.oid and left(tgname, 9) = 'gencache_')
     order by 1, 2 limit ?`,
    [[...new Set(own.map(({ schema }) => schema))], UNWATCHED_MAX + 1],
  );
  const names = rows.map(({ schema, name }) => displayName(schema, name));
  return names.length > UNWATCHED_MAX ? [...names.slice(0, UNWATCHED_MAX), '...'] : names;
}
