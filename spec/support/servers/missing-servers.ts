import { startPostgres } from './postgres-server.js';
import { startRedis } from './redis-server.js';

export interface MissingServers {
  /** What to add to the environment: REDIS_URL and DATABASE_URL, each only if it was not set. */
  readonly env: Readonly<Record<string, string>>;
  stop(options?: { keep?: boolean }): Promise<void>;
}

/** Starts a private server for each of REDIS_URL and DATABASE_URL that is not set; stops them if one fails. */
export async function startMissingServers(): Promise<MissingServers> {
  const missing = Object.entries({ REDIS_URL: startRedis, DATABASE_URL: startPostgres }).filter(
    ([name]) => !process.env[name],
  );
  const attempts = await Promise.allSettled(missing.map(async ([name, start]) => ({ name, server: await start() })));
  const started = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
  const stop = async (options?: { keep?: boolean }) => {
    await Promise.all(started.map(({ server }) => server.stop(options)));
  };

  const failure = attempts.find((attempt) => attempt.status === 'rejected');
  if (failure !== undefined) {
    await stop();
    throw failure.reason;
  }
  return { env: Object.fromEntries(started.map(({ name, server }) => [name, server.url])), stop };
}
