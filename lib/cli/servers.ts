import { Redis } from 'ioredis';
import knex, { type Knex } from 'knex';
import { endsWithin } from '../async/ends-within.js';
import type { OutboxOptions } from '../knex/outbox/location.js';
import { type Arguments, type Options, UsageError } from './arguments.js';
import { toldOfPostgres } from './postgres-remedies.js';
import type { Terminal } from './terminal.js';

export const DATABASE: Options = {
  database: { value: 'URL', help: 'of PostgreSQL; default: DATABASE_URL, which no list of processes shows' },
  schema: { value: 'NAME', help: "of the outbox; default: where the connection's search path leads" },
};

export const REDIS: Options = {
  redis: { value: 'URL', help: 'of Redis; default: REDIS_URL, which no list of processes shows' },
};

/** A server that has not answered by then is away, in ms. */
const CONNECT_MS = 5_000;
const COMMAND_MS = 5_000;
const CLOSE_MS = 2_000;
/** When a peer that is silent is asked whether it is still there, in ms. */
const KEEP_ALIVE_MS = 10_000;

export interface Database {
  readonly db: Knex;
  readonly outbox: OutboxOptions;
}

/**
 * Lends a Knex of its own to `work`, and says of its errors which are PostgreSQL's. Connects only when `work` asks
 * something.
 */
export async function withDatabase<T>(
  args: Arguments,
  terminal: Terminal,
  { name = 'gencache', pool = { min: 0, max: 2 } }: { readonly name?: string; readonly pool?: Knex.PoolConfig },
  work: (database: Database) => Promise<T>,
): Promise<T> {
  const url = urlOf(args, terminal, 'database', 'DATABASE_URL', ['postgres:', 'postgresql:']);
  const schema = args.text('schema');
  const outbox: OutboxOptions = schema === undefined ? {} : { schema };
  const db = knex({
    client: 'pg',
    connection: {
      connectionString: url,
      application_name: name,
      connectionTimeoutMillis: CONNECT_MS,
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEP_ALIVE_MS,
    },
    acquireConnectionTimeout: 2 * CONNECT_MS,
    pool,
    // What fails rejects; Knex would tell it once more, in its own words.
    log: { warn() {}, error() {}, debug() {}, deprecate() {} },
  });
  try {
    return await work({ db, outbox });
  } catch (error) {
    throw await toldOfPostgres(db, outbox, error);
  } finally {
    await endsWithin(CLOSE_MS, db.destroy());
  }
}

/** Where Redis is. Nothing is connected: `redisStore` makes a connection of its own. */
export function redisTemplate(args: Arguments, terminal: Terminal): Redis {
  return new Redis(redisUrl(args, terminal), { lazyConnect: true });
}

/** Lends a connection to `work`, which is told what went wrong if there is none. */
export async function withRedis<T>(
  args: Arguments,
  terminal: Terminal,
  work: (redis: Redis) => Promise<T>,
): Promise<T> {
  const redis = new Redis(redisUrl(args, terminal), {
    lazyConnect: true,
    connectTimeout: CONNECT_MS,
    commandTimeout: COMMAND_MS,
    maxRetriesPerRequest: 0,
    // ioredis prints what it thinks of a user who may not see INFO.
    enableReadyCheck: false,
    retryStrategy: () => null,
  });
  // What ioredis rejects with says that a connection was closed, not why.
  let why: Error | undefined;
  redis.on('error', (error: Error) => (why = error));
  try {
    await redis.connect().catch((error: unknown) => {
      throw why ?? error;
    });
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}

function redisUrl(args: Arguments, terminal: Terminal): string {
  return urlOf(args, terminal, 'redis', 'REDIS_URL', ['redis:', 'rediss:']);
}

/** The URL is not told back: it may hold a password. */
function urlOf(
  args: Arguments,
  terminal: Terminal,
  option: string,
  variable: string,
  protocols: readonly string[],
): string {
  const text = args.text(option) ?? process.env[variable];
  if (!text) {
    throw new UsageError(
      `This command needs the server's address. There is none. Set ${variable}, or add --${option} URL.`,
    );
  }
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !protocols.includes(url.protocol)) {
    const from = args.text(option) === undefined ? variable : `--${option}`;
    throw new UsageError(
      `${from} is a URL that begins with ${protocols[0]}//. It is not. Percent-encode what a password has of :/?#@.`,
    );
  }
  terminal.hide(url);
  return text;
}
