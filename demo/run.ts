/**
 * `npm run demo -- [--seconds N] [--cluster] [--local verify|track] [--json]`
 *
 * Fills the workflow engine's tables, sends a stream of events through its cache while an editor changes the tables, and
 * prints the numbers. REDIS_URL and DATABASE_URL are the addresses of servers, where the demo uses keys and a schema of its
 * own and removes them; without an address the server is embedded. With --cluster the demo starts a Redis Cluster of three
 * primaries in place of Redis.
 *
 * Exit code: 0; 1 with a message if a promise was broken or the demo failed; 64 for wrong arguments.
 */
import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { openCluster } from './cluster.js';
import { abortOnSignals, Interrupted } from './interrupt.js';
import { measure } from './measure.js';
import { openPostgres } from './postgres.js';
import { openRedis } from './redis.js';
import { brokenPromises, type Result, toJson, toTable } from './report.js';

interface Options {
  readonly seconds: number;
  readonly cluster: boolean;
  readonly local: 'verify' | 'track' | undefined;
  readonly json: boolean;
}

async function main(): Promise<number> {
  const options = parsed();
  if (options === undefined) {
    process.stderr.write(
      'Usage: npm run demo -- [--seconds N] [--cluster] [--json]\n' +
        '  --seconds N   duration of the warm phase, above 0; default: 20\n' +
        '  --cluster     on a Redis Cluster of three primaries, started by redis-server; not with REDIS_URL\n' +
        '  --local MODE  with a local tier; track needs REDIS_URL or --cluster: an in-memory store tells no changes\n' +
        '  --json        prints one object instead of the table\n',
    );
    return 64;
  }
  const stop = new AbortController();
  abortOnSignals(stop);
  try {
    const result = await demonstrate(options, stop);
    const broken = brokenPromises(result);
    if (!options.json) process.stdout.write(`${toTable(result)}\n`);
    for (const promise of broken) process.stderr.write(`${promise}\n`);
    if (options.json) process.stdout.write(`${toJson(result)}\n`);
    return broken.length > 0 ? 1 : 0;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return error instanceof Interrupted ? error.exitCode : 1;
  }
}

function parsed(): Options | undefined {
  try {
    const { values } = parseArgs({
      options: {
        seconds: { type: 'string' },
        cluster: { type: 'boolean' },
        local: { type: 'string' },
        json: { type: 'boolean' },
      },
    });
    const { cluster = false, local, json = false } = values;
    const seconds = Number(values.seconds ?? 20);
    const isAmbiguous = cluster && Boolean(process.env['REDIS_URL']);
    const isRedis = cluster || Boolean(process.env['REDIS_URL']);
    if (local !== undefined && local !== 'verify' && !(local === 'track' && isRedis)) return undefined;
    return seconds > 0 && seconds < Infinity && !isAmbiguous ? { seconds, cluster, local, json } : undefined;
  } catch {
    return undefined;
  }
}

/** Opens the servers, measures on them, and always removes what it made there. */
async function demonstrate({ seconds, cluster, local, json }: Options, stop: AbortController): Promise<Result> {
  const name = `demo_${randomBytes(6).toString('hex')}`;
  const tell = (line: string) => (json ? undefined : process.stdout.write(`${line}\n`));
  const redis = cluster ? await openCluster() : await openRedis(process.env['REDIS_URL'] || undefined, name);
  try {
    const postgres = await openPostgres(process.env['DATABASE_URL'] || undefined, `gencache_${name}`);
    try {
      tell(`On ${postgres.where}, and ${redis.where}.`);
      stop.signal.throwIfAborted();
      const progress = !json && process.stderr.isTTY;
      const phases = await measure(postgres, redis, { name, seconds, progress, local }, stop);
      return { redis: redis.kind, postgres: postgres.kind, ...phases };
    } finally {
      await postgres.close();
    }
  } finally {
    await redis.close();
  }
}

process.exitCode = await main();
