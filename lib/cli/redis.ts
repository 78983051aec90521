import { Redis } from 'ioredis';
import type { Arguments } from './arguments.js';
import { serverUrl } from './server-url.js';
import type { Terminal } from './terminal.js';

/** A server that does not answer within this time is away, in ms. */
const CONNECT_MS = 5_000;
const COMMAND_MS = 5_000;

/** A client with the address of Redis, not connected: `redisStore` makes a connection of its own. */
export function redisTemplate(args: Arguments, terminal: Terminal): Redis {
  return new Redis(redisUrl(args, terminal), { lazyConnect: true });
}

/** Lends `work` a connection to Redis. Rejects with the cause if there is none. */
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
    // With its check ioredis prints a warning for a user without INFO.
    enableReadyCheck: false,
    retryStrategy: () => null,
  });
  // ioredis rejects with "Connection is closed"; the cause comes in an event before.
  let cause: Error | undefined;
  redis.on('error', (error: Error) => (cause = error));
  try {
    await redis.connect().catch((error: unknown) => {
      throw cause ?? error;
    });
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}

function redisUrl(args: Arguments, terminal: Terminal): string {
  return serverUrl(args, terminal, {
    option: 'redis',
    variable: 'REDIS_URL',
    // The last one is the path of a socket.
    beginnings: ['redis://', 'rediss://', '/'],
    passwordOf: (address) => new Redis(address, { lazyConnect: true }).options.password ?? undefined,
  });
}
