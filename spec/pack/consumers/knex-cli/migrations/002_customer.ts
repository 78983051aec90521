import { narrowBump, onChangeOf, removeTriggers } from 'gencache/knex';
import type { Knex } from 'knex';

const cache = 'knex-cli';

export async function up(db: Knex): Promise<void> {
  await narrowBump(db, { cache, migration: __filename, to: [{ customer: 42 }] });
  await db.schema.createTable('knex_cli_customer', (table) => table.integer('id').primary());
  await onChangeOf(db, 'knex_cli_customer', { cache }).bump({ customer: 'id' }).install();
  await db('knex_cli_customer').insert({ id: 42 });
}

export async function down(db: Knex): Promise<void> {
  await removeTriggers(db, 'knex_cli_customer', { cache });
  await db.schema.dropTable('knex_cli_customer');
}
