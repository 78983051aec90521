import knex, { type Knex } from 'knex';
import { installOutbox } from '../../../lib/knex/outbox/install.js';
import { lend } from '../../support/lenders.js';
import { lendDatabase, type LendDatabaseOptions } from '../../support/postgres.js';
import {
  type PostgresServer,
  type PostgresServerOptions,
  startPostgres,
} from '../../support/servers/postgres-server.js';

export const CACHE = 'shop';

/** A schema of its own with an outbox. */
export async function lendOutboxDatabase(options?: LendDatabaseOptions): Promise<Knex> {
  const db = await lendDatabase(options);
  await installOutbox(db);
  return db;
}

/** A PostgreSQL of its own, for what must be set at its start or concerns a whole database. */
export async function lendPostgres(options: PostgresServerOptions): Promise<PostgresServer> {
  const server = await startPostgres(options);
  lend({ what: 'a private PostgreSQL', close: ({ keep }) => server.stop({ keep }) });
  return server;
}

/** A Knex on any database. */
export function lendKnex(url: string): Knex {
  const db = knex({ client: 'pg', connection: url });
  lend({ what: `the Knex of ${url}`, close: () => db.destroy() });
  return db;
}

export interface RecordedEvent {
  readonly cache: string;
  readonly path: string;
  readonly lookup: string | null;
  readonly args: unknown;
  readonly source: string;
  readonly operation: string;
  readonly application: string;
}

/** What was recorded, and is then forgotten: events in order. */
export async function takeEvents(db: Knex): Promise<RecordedEvent[]> {
  const { rows } = await db.raw<{ rows: (RecordedEvent & { seq: string })[] }>(
    'delete from gencache_outbox returning cache, path, lookup, args, source, operation, application, seq',
  );
  return rows.sort((a, b) => Number(BigInt(a.seq) - BigInt(b.seq)));
}

/** The same as `UPDATE detector=1`, sorted. */
export async function takePaths(db: Knex): Promise<string[]> {
  return (await takeEvents(db)).map(({ operation, path }) => `${operation} ${path}`).sort();
}

/** What was recorded with its look-ups resolved, as a relay does: now, in a fresh snapshot. Distinct scopes, sorted. */
export async function takeScopes(db: Knex): Promise<string[]> {
  const scopes = new Set<string>();
  for (const { path, lookup, args } of await takeEvents(db)) {
    if (lookup === null) scopes.add(path);
    else {
      const { rows } = await db.raw<{ rows: { path: string }[] }>(`select path from ??(?::jsonb) as path`, [
        lookup,
        JSON.stringify(args),
      ]);
      for (const row of rows) scopes.add(row.path);
    }
  }
  return [...scopes].sort();
}

/** Everything that triggers leave in the catalog of this schema. */
export async function leftovers(db: Knex): Promise<string[]> {
  const { rows } = await db.raw<{ rows: { name: string }[] }>(
    `select proname as name from pg_proc
     where pronamespace = current_schema()::regnamespace and proname ~ '^gencache_(on|lookup)_'
     union all
     select tgname from pg_trigger join pg_class on pg_class.oid = tgrelid
     where relnamespace = current_schema()::regnamespace and tgname ~ '^gencache_'
     union all select 'definition of ' || table_name from gencache_trigger`,
  );
  return rows.map(({ name }) => name);
}
