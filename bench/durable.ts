import knex, { type Knex } from 'knex';
import { installOutbox, onChangeOf } from '../lib/knex/index.js';
import { startPostgres } from '../spec/support/servers/postgres-server.js';

/** A PostgreSQL that survives a crash, with an outbox: fsync, synchronous_commit and full_page_writes are on. */
export interface Durable {
  readonly url: string;
  readonly db: Knex;
  stop(): Promise<void>;
}

export async function startDurable(): Promise<Durable> {
  // No checkpoint within a block: the pages that it makes the next writes log whole would be one side's alone.
  const server = await startPostgres({ durable: true, settings: { checkpoint_timeout: '1h', max_wal_size: '16GB' } });
  const db = knex({ client: 'pg', connection: server.url, pool: { min: 0, max: 4 } });
  await installOutbox(db);
  return {
    url: server.url,
    db,
    async stop() {
      await db.destroy();
      await server.stop();
    },
  };
}

/** Rows of a table of `makeItems`. */
export const ITEMS = 10_000;

/** A table of 10,000 rows of 150 bytes, with a primary key and an index, which name so many detectors. */
export async function makeItems(db: Knex, table: string, detectors: number): Promise<void> {
  await db.schema.createTable(table, (columns) => {
    columns.bigInteger('id').primary();
    columns.bigInteger('detector_id').notNullable().index();
    columns.text('name').notNullable();
    columns.boolean('enabled').notNullable().defaultTo(true);
    columns.jsonb('config').notNullable().defaultTo('{"action": "page", "target": "on-call", "priority": 3}');
    columns.timestamp('updated_at').notNullable().defaultTo(db.fn.now());
  });
  await db.raw(
    `insert into ?? (id, detector_id, name)
     select i, i % ?, 'Notify on-call ' || i from generate_series(1, ?) as i`,
    [table, detectors, ITEMS],
  );
  await db.raw('vacuum analyze ??', [table]);
}

/** Records its changes: each bumps the detectors that its old and its new rows name. */
export async function watchItems(db: Knex, table: string, cache: string): Promise<void> {
  await onChangeOf(db, table, { cache }).bump({ detector: 'detector_id' }).install();
}
