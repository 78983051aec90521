import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Knex } from 'knex';
import pg from 'pg';
import type { PostgresServer } from './servers/postgres-server.js';

/** Restarts a private server as a hot standby, which answers queries and takes no writes. It has no primary to follow. */
export async function makeStandby(server: PostgresServer): Promise<void> {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  const { rows } = await client.query<{ data: string }>(`select current_setting('data_directory') as data`);
  await client.end();
  writeFileSync(join(rows[0]!.data, 'standby.signal'), '');
  await server.restart();
}

/** Makes a standby the primary. */
export async function promote(db: Knex): Promise<void> {
  await db.raw('select pg_promote()');
}
