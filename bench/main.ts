/**
 * The measures, one after another: run by `run.ts`, compiled.
 *
 * Starts a Redis and a PostgreSQL of its own and stops them. A name picks measures: `hit` all whose name starts so.
 * Exits with 1 when a measure can't be made or finds the library wrong; a missed limit is shown and no error, since
 * a busy machine can cause it.
 */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import knex from 'knex';
import { startPostgres } from '../spec/support/servers/postgres-server.js';
import { type RedisServer, startRedis } from '../spec/support/servers/redis-server.js';
import type { Bench, Measure } from './bench.js';
import { bumpMany } from './measures/bump-many.js';
import { bumpSingle } from './measures/bump-single.js';
import { clusterBump } from './measures/cluster-bump.js';
import { clusterFailover } from './measures/cluster-failover.js';
import { clusterHitBatch } from './measures/cluster-hit-batch.js';
import { clusterHitSingle } from './measures/cluster-hit-single.js';
import { hitBatch } from './measures/hit-batch.js';
import { hitBounded } from './measures/hit-bounded.js';
import { hitConcurrent } from './measures/hit-concurrent.js';
import { hitSingle } from './measures/hit-single.js';
import { hitTwoCommands } from './measures/hit-two-commands.js';
import { invalidateLatency } from './measures/invalidate-latency.js';
import { localMemory } from './measures/local-memory.js';
import { localTrackFetch, localTrackPeek } from './measures/local-track.js';
import { localVerify } from './measures/local-verify.js';
import { memory } from './measures/memory.js';
import { missBatch } from './measures/miss-batch.js';
import { orphans } from './measures/orphans.js';
import { outage } from './measures/outage.js';
import { outageWarm } from './measures/outage-warm.js';
import { relayClaim } from './measures/relay-claim.js';
import { relayDrain } from './measures/relay-drain.js';
import { rivalHit } from './measures/rival-hit.js';
import { staleRefresh } from './measures/stale-refresh.js';
import { stampede } from './measures/stampede.js';
import { trackLatency } from './measures/track-latency.js';
import { walBytes } from './measures/wal-bytes.js';
import { writeFlat } from './measures/write-flat.js';
import { writeStrict } from './measures/write-strict.js';
import { writeTriggerBulk } from './measures/write-trigger-bulk.js';
import { writeTriggerSingle } from './measures/write-trigger-single.js';
import { type Population, populate } from './population.js';
import type { Row } from './row.js';
import { table } from './table.js';

/** In the order of running: what fills a server with a million entries comes last. */
const MEASURES: Readonly<Record<string, Measure>> = {
  'hit.single': hitSingle,
  'hit.batch': hitBatch,
  'hit.concurrent': hitConcurrent,
  'hit.two': hitTwoCommands,
  'hit.bounded': hitBounded,
  'cluster.hit.single': clusterHitSingle,
  'cluster.hit.batch': clusterHitBatch,
  'cluster.bump': clusterBump,
  'local.verify': localVerify,
  'local.track.fetch': localTrackFetch,
  'local.track.peek': localTrackPeek,
  'track.latency': trackLatency,
  'local.memory': localMemory,
  'rival.hit': rivalHit,
  'miss.batch': missBatch,
  'bump.many': bumpMany,
  outage,
  'outage.warm': outageWarm,
  'cluster.failover': clusterFailover,
  stampede,
  'stale.refresh': staleRefresh,
  'write.strict': writeStrict,
  'write.trigger.single': writeTriggerSingle,
  'write.trigger.bulk': writeTriggerBulk,
  'write.flat': writeFlat,
  'wal.bytes': walBytes,
  'invalidate.latency': invalidateLatency,
  'relay.claim': relayClaim,
  'relay.drain': relayDrain,
  orphans,
  'bump.single': bumpSingle,
  memory,
};

const { values: flags, positionals: names } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, json: { type: 'string' } },
  allowPositionals: true,
});
const picked = Object.entries(MEASURES).filter(
  ([name]) => names.length === 0 || names.some((wanted) => name.startsWith(wanted) || wanted.startsWith(name)),
);
if (picked.length === 0)
  throw new Error(`A measure is one of ${Object.keys(MEASURES).join(', ')}. Got ${names.join(', ')}.`);

const say = (text: string) => process.stderr.isTTY && process.stderr.write(`\r\x1b[K${text}`);

async function main(): Promise<void> {
  const startedAtMs = performance.now();
  say('starting servers');
  const [server, postgres] = await Promise.all([startRedis(), startPostgres()]);
  const redis = new Redis(server.url);
  const db = knex({ client: 'pg', connection: postgres.url, pool: { min: 0, max: 4 } });
  let large: RedisServer | undefined;
  let million: Promise<Population> | undefined;
  const fill = async () => {
    large = await startRedis();
    const done = await populate(large.url, 'million', 10_000, 100, (share) =>
      say(`storing a million entries: ${Math.round(100 * share)} %`),
    );
    return done;
  };
  const bench: Bench = {
    redisUrl: server.url,
    redis,
    db,
    million: () => (million ??= fill()),
    quick: flags.quick,
    plan: { pairs: flags.quick ? 100 : 400 },
  };
  const rows: Row[] = [];
  try {
    for (const [name, measure] of picked) {
      say(name);
      const measuringSinceMs = performance.now();
      rows.push(...(await measure(bench)));
      process.stderr.write(`\r${name}: ${((performance.now() - measuringSinceMs) / 1_000).toFixed(1)} s\n`);
    }
    const info = await redis.info('server');
    say('');
    process.stdout.write(`${table(rows)}\n`);
    process.stdout.write(
      `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown processor'}, Node ${process.versions.node}, ` +
        `Redis ${/redis_version:(\S+)/.exec(info)?.[1]}; medians of ${bench.plan.pairs} pairs of alternating blocks; ` +
        `${Math.round((performance.now() - startedAtMs) / 1_000)} s\n`,
    );
    if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(rows, null, 2)}\n`);
  } finally {
    redis.disconnect();
    await db.destroy();
    await Promise.all([server.stop(), postgres.stop(), large?.stop()]);
  }
}

await main();
