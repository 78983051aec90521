import type { Knex } from 'knex';
import { installMigrationsTrigger } from '../../lib/knex/migrations/migrations-trigger.js';
import { onChangeOf } from '../../lib/knex/triggers/on-change.js';
import { databaseUrl, lendDatabase, schemaOf } from '../support/postgres.js';
import { uniqueName } from '../support/redis.js';
import { lendOutbox } from '../support/relay.js';
import { type Env, serversOf } from './gencache.js';

/** A command starts a process, and some wait for silence: a spec of it may take this long, in ms. */
const COMMAND_MS = 60_000;

/** Describes a command of the program: `gencache bump`. */
export function describeCommand(words: string, define: () => void): void {
  describe(words, function () {
    this.timeout(COMMAND_MS);
    define();
  });
}

/** The place that a command works on: a schema of its own, the environment with both servers, and a cache name. */
export interface Installation {
  readonly db: Knex;
  readonly env: Env;
  readonly cache: string;
}

/** Lends a schema with an outbox, or an empty one, for as long as `lendDatabase` does. */
export async function lendInstallation({ outbox = true }: { outbox?: boolean } = {}): Promise<Installation> {
  const db = await (outbox ? lendOutbox() : lendDatabase());
  return { db, env: serversOf(db), cache: uniqueName() };
}

/** Creates the partitioned table `item` with triggers for the cache. */
export async function installItemTriggers({ db, cache }: Pick<Installation, 'db' | 'cache'>): Promise<void> {
  await db.raw('create table item (id int primary key) partition by range (id)');
  await db.raw('create table item_1 partition of item for values from (0) to (10)');
  await onChangeOf(db, 'item', { cache }).bump({ item: 'id' }).install();
}

/** Creates a table of Knex migrations. */
export async function createMigrationsTable(db: Knex): Promise<void> {
  await db.raw(
    'create table knex_migrations (id serial primary key, name text, batch int, migration_time timestamptz)',
  );
}

/** Creates `item` and the table of migrations, both with triggers: all that step 3 needs beside a relay. */
export async function installEveryTrigger({ db, cache }: Pick<Installation, 'db' | 'cache'>): Promise<void> {
  await installItemTriggers({ db, cache });
  await createMigrationsTable(db);
  await installMigrationsTrigger(db, { cache });
}

/** Lends a role that may use the schema, and the environment of a program that has the role; drops it afterwards. */
export async function withRole(
  { db, env }: Pick<Installation, 'db' | 'env'>,
  work: (role: string, as: Env) => Promise<void>,
): Promise<void> {
  const role = uniqueName('role');
  await db.raw('create role ??', [role]);
  try {
    await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
    await work(role, { ...env, DATABASE_URL: databaseUrl(`${schemaOf(db)} -c role=${role}`) });
  } finally {
    await db.raw('drop owned by ?? cascade', [role]);
    await db.raw('drop role ??', [role]);
  }
}

/** Lends the name of a second schema, which `work` may create; drops the schema afterwards. */
export async function withSecondSchema(db: Knex, work: (schema: string) => Promise<void>): Promise<void> {
  const schema = `${schemaOf(db)}_audit`;
  try {
    await work(schema);
  } finally {
    await db.raw('drop schema if exists ?? cascade', [schema]);
  }
}
