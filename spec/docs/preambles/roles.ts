/**
 * A shop whose tables, outbox and triggers belong to the role `shop_owner`; and proofs that another role can do its work.
 * `db` is the superuser's, with which blocks of SQL grant.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import knex, { type Knex } from 'knex';
import { GenerationalCache, integer } from 'gencache';
import {
  installMigrationsTrigger,
  installOutbox,
  type KnexContext,
  knexSource,
  onChangeOf,
  startRelay,
  withGenerations,
} from 'gencache/knex';
import { redisStore } from 'gencache/redis';

const url = process.env['DATABASE_URL']!;
const urlAs = (role: string) => url.replace('//postgres@', `//${role}@`);
const open: Knex[] = [];

function connect(url: string): Knex {
  const db = knex({ client: 'pg', connection: url, pool: { min: 0, max: 5 }, log: { warn() {} } });
  open.push(db);
  return db;
}

export const db = connect(url);
export const redis = new Redis(process.env['REDIS_URL']!, { lazyConnect: true });

await db.raw('create role shop_owner login; grant create on schema public to shop_owner');
const owner = connect(urlAs('shop_owner'));
await owner.raw(`
  create table customer (id serial primary key, name text not null, plan text not null default 'basic');
  create table product (id serial primary key, name text not null, cents int not null);
  create table shop_order (id serial primary key, customer_id int not null references customer,
    product_id int references product, item text not null);
  insert into customer (id, name) values (42, 'Ada');
  insert into product (id, name, cents) values (7, 'raincoat', 4900);
  insert into shop_order (customer_id, product_id, item) values (42, 7, 'raincoat')`);
await installOutbox(owner);
await onChangeOf(owner, 'shop_order', { cache: 'shop' }).bump({ customer: 'customer_id' }).install();
await onChangeOf(owner, 'product', { cache: 'shop', operations: ['update'] })
  .lookUp('shop_order', { product_id: 'id' })
  .bump({ customer: 'customer_id' })
  .install();
await owner.migrate.latest({ migrationSource: migrationsOf({ name: '000_first', up: async () => {} }) });
await installMigrationsTrigger(owner, { cache: 'shop' });

function migrationsOf(migration: { name: string; up: (db: Knex) => Promise<unknown>; transaction?: boolean }) {
  const names = ['000_first', ...(migration.name === '000_first' ? [] : [migration.name])];
  const source: Knex.MigrationSource<string> = {
    getMigrations: async () => names,
    getMigrationName: (name) => name,
    getMigration: async (name) => ({
      up: async (db) => void (name === migration.name && (await migration.up(db))),
      down: async () => {},
      config: { transaction: name === '000_first' ? true : (migration.transaction ?? true) },
    }),
  };
  return source;
}

/** The shop as this role opens it. */
export function shopOf(role: string, settings: { readonly maxStalenessMs?: number } = {}) {
  const db = connect(urlAs(role));
  const source = knexSource(db);
  const cache = new GenerationalCache<KnexContext, Knex.Transaction>({
    ...{ name: 'shop', store: redisStore(redis), source, readDeadlineMs: 1_000, ...settings },
  });
  const customers = cache.namespace('customer', integer());
  const orders = customers.list('orders', {
    load: (ids, { db }) =>
      db<{ customer_id: number; item: string }>('shop_order')
        .whereIn(
          'customer_id',
          ids.map((id) => Number(id.customer)),
        )
        .orderBy('id'),
    by: (row) => ({ customer: row.customer_id }),
    value: (row) => row.item,
  });
  return { db, cache, customers, orders };
}

/** Reads, writes, bumps and commits strictly; leaves nothing in the outbox. */
export async function proveApp(role: string): Promise<void> {
  // One that counts, as in an installation where a relay has run before: deleting events then reads who does.
  await db('gencache_authority').insert({ cache: 'other', redis: 'a.b', postgres: 'c' });
  const { db: own, cache, customers, orders } = shopOf(role);
  assert.deepEqual(await orders.fetch({ customer: 42 }), ['raincoat']);
  const work = async (trx: Knex.Transaction) => {
    await trx('shop_order').insert({ customer_id: 42, product_id: 7, item: 'tent' });
    await trx('product').where({ id: 7 }).update({ cents: 5_000 });
    await customers.bump({ customer: 42 }, { trx });
  };
  const plain = await cache.transaction(work);
  assert.deepEqual([plain.bump, plain.error], ['done', undefined]);
  const strict = await cache.transaction(work, { strict: true });
  assert.deepEqual([strict.bump, strict.strict, strict.error], ['done', 'kept', undefined]);
  await own.transaction(work);
  await cache.settled();
  await untilEmpty(role);
  assert.deepEqual(await orders.fetch({ customer: 42 }), ['raincoat', 'tent', 'tent', 'tent']);
  await cache.close();
  assert.deepEqual(await db('gencache_declaration').pluck('cache'), ['shop']);
}

async function untilEmpty(role: string): Promise<void> {
  for (let i = 0; i < 200; i++) {
    const [{ waiting }] = await db('gencache_outbox')
      .count({ waiting: '*' })
      .then((rows) => rows as [{ waiting: string }]);
    if (waiting === '0') return;
    await sleep(20);
  }
  throw new Error(`What ${role} should have bumped and deleted is still in the outbox`);
}

/** Relays events, looks up rows, keeps dead letters, and asks a migration's lock. */
export async function proveRelay(role: string): Promise<void> {
  const warnings: string[] = [];
  const log = { debug() {}, info() {}, warn: (line: string) => warnings.push(line), error() {} };
  const own = connect(urlAs(role));
  const relay = startRelay({ cache: 'shop', db: own, store: redisStore(redis), maxStalenessMs: 2_000, log });
  while (relay.status.repairs === 0 && warnings.length === 0) await sleep(10);
  await db('shop_order').insert({ customer_id: 42, item: 'tent' });
  await db('product').where({ id: 7 }).update({ cents: 5_000 }); // a look-up
  await db('gencache_outbox').insert({ cache: 'shop', path: '?', source: 'a test', operation: 'bump' }); // a dead letter
  await untilEmpty(role);
  assert.equal(relay.status.deadLetters, 1, 'the look-up was understood, the strange path kept');

  // A migration outside a transaction holds an event while it runs.
  const config = withGenerations({ client: 'pg', connection: urlAs('shop_owner') }, { cache: 'shop' });
  const migrating = knex(config);
  open.push(migrating);
  const held: unknown[] = [];
  relay.on('heldByMigration', ({ locks }) => held.push(...locks));
  const up = async () => {
    while (held.length === 0) await sleep(10);
  };
  await migrating.migrate.latest({ migrationSource: migrationsOf({ name: '001_slow', up, transaction: false }) });
  assert.deepEqual(held, [{ table: held.length > 0 ? (held[0] as { table: string }).table : '', error: undefined }]);
  await untilEmpty(role);
  assert.deepEqual(
    warnings.filter((line) => !line.includes('knex migrate:unlock')),
    [],
  );
  await relay.stop();
}

/** Writes as a program that knows nothing of the cache: its changes are recorded all the same. */
export async function proveWriter(role: string): Promise<void> {
  const own = connect(urlAs(role));
  await own.raw(`insert into shop_order (customer_id, item) values (42, 'tent')`);
  await own.raw(`update product set cents = 1`);
  assert.equal((await db('gencache_outbox')).length, 2);
  await assert.rejects(async () => own('gencache_outbox'), /permission denied/);
}

/** The doctor finds no right that this role lacks. */
export function proveDoctor(role: string): void {
  const { stdout } = spawnSync('gencache', ['doctor', '--cache', 'shop', '--json'], {
    env: { ...process.env, DATABASE_URL: urlAs(role) },
    encoding: 'utf8',
  });
  const { findings } = JSON.parse(stdout) as { findings: { check: string; status: string }[] };
  assert.ok(findings.some(({ check, status }) => check === 'outbox' && status === 'ok'));
  assert.deepEqual(
    findings.filter(({ check }) => check === 'rights'),
    [],
  );
}

export async function end(): Promise<void> {
  redis.disconnect();
  for (const each of open) await each.destroy();
}
