import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import knex, { type Knex } from 'knex';
import pg from 'pg';
import { lend, type Lifetime } from './lenders.js';
import { type PostgresServer, type PostgresServerOptions, startPostgres } from './servers/postgres-server.js';

/** The shared database's URL; with a schema, one whose connections look only there. */
export function databaseUrl(schema?: string): string {
  const url = process.env['DATABASE_URL'];
  if (!url) throw new Error('DATABASE_URL is set once the run has begun: call databaseUrl() in a hook or a spec.');
  if (schema === undefined) return url;
  return `${url}${url.includes('?') ? '&' : '?'}options=${encodeURIComponent(`-c search_path=${schema}`)}`;
}

export interface LendDatabaseOptions {
  readonly for?: Lifetime;
  readonly pool?: Knex.PoolConfig;
}

/**
 * A Knex on a schema of its own, `gencache_<random>`, and nothing else in its search path. After the spec (or the
 * suite, when a `before` hook calls it) the schema is dropped and the Knex destroyed. A schema and not a database,
 * so that the role needs no CREATEDB. A connection in use at the end is a leak: its sessions are ended.
 */
export async function lendDatabase(options: LendDatabaseOptions = {}): Promise<Knex> {
  const url = databaseUrl();
  const schema = `gencache_${randomBytes(6).toString('hex')}`;
  await withClient(url, (client) => client.query(`create schema ${schema}`));
  const database = knex({
    client: 'pg',
    // The sessions' application name tells the schema's sessions from all others.
    connection: { connectionString: url, application_name: schema },
    searchPath: [schema],
    pool: { min: 0, max: 10, ...options.pool },
  });
  const pool = () => (database.client as { pool?: Pool }).pool;

  lend(
    {
      what: `the Knex of schema ${schema}`,
      sockets: () => (pool()?.numUsed() ?? 0) + (pool()?.numFree() ?? 0),
      async close({ keep }) {
        const leaked = await inUse(pool);
        await withClient(url, async (client) => {
          // Sessions left in a transaction would hold the locks that the drop needs; ending them also lets the
          // pool, which waits for what is in use, be destroyed.
          if (leaked > 0) await client.query(END_SESSIONS, [schema]);
          if (leaked === 0) await database.destroy();
          else void database.destroy().catch(() => {});
          if (keep) process.stderr.write(`KEEP: schema ${schema} of ${url} has the spec's tables.\n`);
          else await client.query(`drop schema if exists ${schema} cascade`);
        });
        if (leaked > 0) throw new Error(`${leaked} of its connections were still in use`);
      },
    },
    options.for,
  );
  return database;
}

/** A private server for what would disturb others, must be set at its start, or concerns all of its databases. */
export async function privatePostgres(
  options: PostgresServerOptions & { for?: Lifetime } = {},
): Promise<PostgresServer> {
  const { for: lifetime, ...rest } = options;
  const server = await startPostgres(rest);
  lend({ what: `the private PostgreSQL of port ${server.port}`, close: ({ keep }) => server.stop({ keep }) }, lifetime);
  return server;
}

/** The schema of a lent Knex. */
export function schemaOf(database: Knex): string {
  const { searchPath } = (database.client as { config: Knex.Config }).config;
  const schema = Array.isArray(searchPath) ? searchPath[0] : searchPath;
  if (schema === undefined) throw new Error('This Knex has no search path: it was not lent by lendDatabase().');
  return schema;
}

/** The major release of its server: 15. A spec of what an older release lacks asks, and skips itself. */
export async function majorVersion(database: Knex): Promise<number> {
  const { rows } = await database.raw<{ rows: { number: string }[] }>(
    `select current_setting('server_version_num') as number`,
  );
  return Math.floor(Number(rows[0]!.number) / 10_000);
}

interface Pool {
  numUsed(): number;
  numFree(): number;
}

const SETTLE_MS = 1_000;

/** $1: application name. Ends its sessions; takes no locks; a role may end its own sessions. */
const END_SESSIONS = 'select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1';

/** Connections in use, after a moment for what a finished spec is about to release. Knex forgets a destroyed pool. */
async function inUse(pool: () => Pool | undefined): Promise<number> {
  const deadline = performance.now() + SETTLE_MS;
  while ((pool()?.numUsed() ?? 0) > 0 && performance.now() < deadline) await sleep(10);
  return pool()?.numUsed() ?? 0;
}

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
