import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox } from '../../../lib/knex/install/install-outbox.js';
import { findMigrationLists } from '../../../lib/knex/migrations/migration-lists.js';
import { installMigrationsTrigger } from '../../../lib/knex/migrations/migrations-trigger.js';
import { lendDatabase } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { eventsOf } from './project.js';

/** The list of each tool as it creates it, and a row as it adds one. */
const LISTS: Record<string, [table: string, columns: string, row: string]> = {
  Knex: ['ran', 'id serial primary key, name text, batch int, migration_time timestamptz', `(default, 'a', 1, now())`],
  'db-migrate': ['migrations', 'id serial primary key, name varchar(255), run_on timestamp', `(default, 'a', now())`],
  'node-pg-migrate': [
    'pgmigrations',
    'id serial primary key, name varchar(255), run_on timestamp',
    `(default, 'a', now())`,
  ],
  TypeORM: ['migrations', 'id serial primary key, timestamp bigint, name varchar', `(default, 1, 'a')`],
  Sequelize: ['SequelizeMeta', 'name varchar(255) primary key', `('a')`],
  Prisma: [
    '_prisma_migrations',
    'id varchar(36) primary key, checksum varchar(64), finished_at timestamptz, migration_name varchar(255), logs text',
    `('1', 'x', null, 'a', null)`,
  ],
  Drizzle: [
    '__drizzle_migrations',
    'id serial primary key, hash text not null, created_at bigint',
    `(default, 'x', 1)`,
  ],
  Kysely: ['kysely_migration', 'name varchar(255) primary key, timestamp varchar(255)', `('a', 'b')`],
  MikroORM: [
    'mikro_orm_migrations',
    'id serial primary key, name varchar(255), executed_at timestamptz',
    `(default, 'a', now())`,
  ],
  'graphile-migrate': [
    'migrations',
    'hash text primary key, previous_hash text, filename text, date timestamptz',
    `('x', null, 'a', now())`,
  ],
  'Rails, dbmate or golang-migrate': ['schema_migrations', 'version varchar primary key', `('1')`],
  Django: [
    'django_migrations',
    'id bigserial primary key, app varchar, name varchar, applied timestamptz',
    `(default, 'x', 'a', now())`,
  ],
  Alembic: ['alembic_version', 'version_num varchar(32) primary key', `('1')`],
  Flyway: [
    'flyway_schema_history',
    'installed_rank int primary key, version varchar(50), description varchar(200), script varchar(1000)',
    `(1, '1', 'x', 'a')`,
  ],
  Liquibase: ['databasechangelog', 'id varchar(255), author varchar(255), filename varchar(255)', `('1', 'x', 'a')`],
  goose: ['goose_db_version', 'id serial primary key, version_id bigint, is_applied boolean', `(default, 1, true)`],
};

describe('the list of migrations of a tool', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendDatabase();
  });

  for (const [tool, [table, columns, row]] of Object.entries(LISTS)) {
    it(`of ${tool} is found, and a trigger on it records each migration`, async () => {
      const cache = uniqueName();
      await installOutbox(db);
      await db.raw(`create table ?? (${columns})`, [table]);
      const found = await findMigrationLists(db, []);
      expect(found.map((list) => [list.relation.name, list.tool])).to.deep.equal([[table, tool]]);
      await installMigrationsTrigger(db, { cache, table });
      await db.raw(`insert into ?? values ${row}`, [table]);
      expect(await eventsOf(db, cache)).to.deep.equal([`*.${table} migration global`]);
    });
  }

  it('is no table of the application with the name alone', async () => {
    await db.raw('create table migrations (id int, species text, season text)');
    expect(await findMigrationLists(db, [])).to.deep.equal([]);
  });
});
