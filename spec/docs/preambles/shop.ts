/** A shop: customers, their orders, and products, in PostgreSQL; a cache of the orders, on Redis. */
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import knex, { type Knex } from 'knex';
import { GenerationalCache, integer } from 'gencache';
import { knexSource } from 'gencache/knex';
import { redisStore } from 'gencache/redis';

export const db = knex({
  client: 'pg',
  connection: process.env['DATABASE_URL']!,
  pool: { min: 0, max: 10 },
  log: { warn() {} },
});
export const redis = new Redis(process.env['REDIS_URL']!, { lazyConnect: true });

export interface Order {
  readonly id: number;
  readonly customer_id: number;
  readonly product_id: number | null;
  readonly item: string;
}

await db.schema
  .createTable('customer', (table) => {
    table.increments('id');
    table.text('name').notNullable();
    table.text('plan').notNullable().defaultTo('basic');
  })
  .createTable('product', (table) => {
    table.increments('id');
    table.text('name').notNullable();
    table.integer('cents').notNullable();
  })
  .createTable('shop_order', (table) => {
    table.increments('id');
    table.integer('customer_id').notNullable().references('customer.id').index();
    table.integer('product_id').references('product.id').index();
    table.text('item').notNullable();
  });
await db('customer').insert([
  { id: 42, name: 'Ada' },
  { id: 43, name: 'Grace' },
]);
await db('product').insert({ id: 7, name: 'raincoat', cents: 4_900 });
await db('shop_order').insert({ customer_id: 42, product_id: 7, item: 'raincoat' });

export const cache = new GenerationalCache({
  ...{ name: 'shop', store: redisStore(redis), source: knexSource(db) },
  readDeadlineMs: 5_000, // a busy machine makes no bypass of a hit
});
export const customers = cache.namespace('customer', integer());
export const orders = customers.list('orders', {
  load: (ids, { db }) =>
    db<Order>('shop_order')
      .whereIn(
        'customer_id',
        ids.map((id) => Number(id.customer)),
      )
      .orderBy('id'),
  by: (row) => ({ customer: row.customer_id }),
  value: (row) => row.item,
});

/**
 * Runs what a migration's file exports as Knex does, under the file's name, and takes it back. `between`: while it is
 * there. `url`: the file's `import.meta.url`.
 */
export async function asMigration(
  url: string,
  migration: { readonly up: (db: Knex) => Promise<unknown>; readonly down?: (db: Knex) => Promise<unknown> },
  between: () => Promise<void> = async () => {},
  on: Knex = db,
): Promise<void> {
  const name = basename(fileURLToPath(url));
  const { up, down = async () => {} } = migration;
  const migrationSource: Knex.MigrationSource<string> = {
    getMigrations: async () => [name],
    getMigrationName: () => name,
    getMigration: async () => ({ up: async (db) => void (await up(db)), down: async (db) => void (await down(db)) }),
  };
  const [, ran] = (await on.migrate.latest({ migrationSource })) as [number, string[]];
  if (ran.length !== 1) throw new Error(`Knex ran ${ran.length} migrations, not one`);
  await between();
  await on.migrate.rollback({ migrationSource });
}

/** Ends what this file opened, when the block has run. */
export async function end(): Promise<void> {
  await cache.close();
  redis.disconnect();
  await db.destroy();
}
