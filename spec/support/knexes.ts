import knex, { type Knex } from 'knex';
import { lend } from './lenders.js';
import { databaseUrl } from './postgres.js';
import { type Proxy, startProxy } from './proxy.js';

/** A Knex of this schema, and the proxy that stands between it and its server. Destroyed after the spec. */
export async function lendProxied(schema: string, url = databaseUrl()): Promise<{ db: Knex; proxy: Proxy }> {
  const target = new URL(url);
  const proxy = await startProxy(Number(target.port || 5432), { protocol: 'postgres' });
  target.host = `127.0.0.1:${proxy.port}`;
  return { db: lendKnex(target.href, schema), proxy };
}

/** A Knex of this URL, and schema if given; destroyed after the spec. */
export function lendKnex(url: string, schema?: string, pool: Knex.PoolConfig = {}): Knex {
  const db = knex({
    client: 'pg',
    connection: { connectionString: url, ...(schema !== undefined && { application_name: schema }) },
    ...(schema !== undefined && { searchPath: [schema] }),
    pool: { min: 0, max: 10, ...pool },
    // Specs that cut connections see it where they await queries.
    log: { warn() {}, error() {}, deprecate() {}, debug() {} },
  });
  lend({ what: `a Knex of ${schema ?? url}`, close: () => db.destroy() });
  return db;
}
