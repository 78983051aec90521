import knex, { type Knex } from 'knex';
import pg from 'pg';
import { endsWithin } from '../async/ends-within.js';
import type { OutboxOptions } from '../knex/outbox/location.js';
import type { Arguments } from './arguments.js';
import { withPostgresRemedy } from './postgres-remedies.js';
import { serverUrl } from './server-url.js';
import type { Terminal } from './terminal.js';

/** A server that does not answer within this time is away, in ms. */
const CONNECT_MS = 5_000;
const CLOSE_MS = 2_000;
/** Silence after which TCP probes the other side, in ms. */
const KEEP_ALIVE_MS = 10_000;

export interface Database {
  readonly db: Knex;
  readonly outbox: OutboxOptions;
}

/** The name, the pool and the limits of the sessions in PostgreSQL. */
interface Sessions {
  readonly name?: string;
  readonly pool?: Knex.PoolConfig;
  /** Time after which a server that does not answer is away, in ms. */
  readonly connectMs?: number;
}

/**
 * Lends `work` a Knex for the addressed database, and adds a remedy to PostgreSQL's errors. Connects at the first query.
 */
export async function withDatabase<T>(
  args: Arguments,
  terminal: Terminal,
  work: (database: Database) => Promise<T>,
  { name = 'gencache', pool = { min: 0, max: 2 }, connectMs = CONNECT_MS }: Sessions = {},
): Promise<T> {
  const url = serverUrl(args, terminal, {
    option: 'database',
    variable: 'DATABASE_URL',
    // The last two are sockets of this machine.
    beginnings: ['postgres://', 'postgresql://', 'socket:', '/'],
    secretsOf: (address) => [{ address, password: new pg.Client({ connectionString: address }).password ?? undefined }],
  });
  const schema = args.text('schema');
  const outbox: OutboxOptions = schema === undefined ? {} : { schema };
  const db = knex({
    client: 'pg',
    connection: {
      connectionString: url,
      application_name: name,
      connectionTimeoutMillis: connectMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEP_ALIVE_MS,
    },
    acquireConnectionTimeout: 2 * connectMs,
    pool,
    // A failed query rejects; Knex would print it besides.
    log: { warn() {}, error() {}, debug() {}, deprecate() {} },
  });
  try {
    return await work({ db, outbox });
  } catch (error) {
    throw await withPostgresRemedy(db, outbox, error);
  } finally {
    await endsWithin(CLOSE_MS, db.destroy());
  }
}
