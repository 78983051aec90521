import { randomBytes } from 'node:crypto';
import { Redis, type RedisOptions } from 'ioredis';
import { lend, type Lifetime } from './lenders.js';
import { startRedis, type RedisServer, type RedisServerOptions } from './servers/redis-server.js';

/** The shared server's URL. Other specs and other runs use it too: keep to `uniqueName`, and disturb nothing. */
export function redisUrl(): string {
  const url = process.env['REDIS_URL'];
  if (!url) throw new Error('REDIS_URL is set once the run has begun: call redisUrl() in a hook or a spec.');
  return url;
}

export interface LendRedisOptions extends Omit<RedisOptions, 'replyMapping'> {
  readonly url?: string;
  readonly for?: Lifetime;
}

/** A client of the shared server, or of another one by its `url` or its `sentinels`; disconnected after the spec. */
export function lendRedis(options: LendRedisOptions = {}): Redis {
  const { url = options.sentinels ? undefined : redisUrl(), for: lifetime, ...rest } = options;
  // RESP=2 runs specs by RESP2 on ioredis 6, whose default is RESP3.
  const settings = { ...(process.env['RESP'] === '2' && { protocol: 2 }), ...rest } as RedisOptions & {
    replyMapping?: 'legacy';
  };
  const client = url === undefined ? new Redis(settings) : new Redis(url, settings);
  // A spec sees errors where it awaits commands; without a listener ioredis prints them besides.
  client.on('error', () => {});
  lend({ what: `the Redis client of ${url ?? 'Sentinels'}`, close: () => client.disconnect() }, lifetime);
  return client;
}

/** A private server for what would disturb others (flush, pause, CONFIG, kill); stopped after the spec. */
export async function privateRedis(options: RedisServerOptions & { for?: Lifetime } = {}): Promise<RedisServer> {
  const { for: lifetime, ...rest } = options;
  const server = await startRedis(rest);
  lend({ what: `the private Redis of port ${server.port}`, close: ({ keep }) => server.stop({ keep }) }, lifetime);
  return server;
}

const run = randomBytes(4).toString('hex');
let names = 0;

/**
 * A name that no other spec and no other run uses, of the characters `[a-z0-9_]`. Put it into every key: when the
 * run ends, keys that contain one of its names are deleted.
 */
export function uniqueName(prefix = 'spec'): string {
  return `${prefix}_${run}_${(names++).toString(36)}`;
}

/** Deletes the keys that contain a unique name of this run; one scan of the shared server. */
export async function forgetSpecKeys(): Promise<void> {
  if (names === 0) return;
  const client = new Redis(redisUrl(), { retryStrategy: () => null });
  client.on('error', () => {});
  try {
    for await (const keys of client.scanStream({ match: `*_${run}_*`, count: 1_000 })) {
      if (keys.length > 0) await client.unlink(...(keys as string[]));
    }
  } finally {
    client.disconnect();
  }
}
