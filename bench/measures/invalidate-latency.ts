import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { Measure } from '../bench.js';
import { makeItems, startDurable, watchItems } from '../durable.js';
import { intervalOfMedian, median, quantile } from '../measure.js';
import { instantMs } from '../other-process.js';
import { OtherRelay } from '../relay.js';
import { threeLevels } from '../workload.js';

const CACHE = 'invalidated';
/** A relay's default. */
const POLL_MS = 50;
const DETECTORS = 100;
/** Each with a p99 of its own. */
const ROUNDS = 9;
/** Something is broken by then. */
const LATE_MS = 30_000;

/**
 * From a commit by psql until a reader in another process misses, with a relay in a third one, which polls.
 *
 * A poll that begins just after the commit sees it at once, and one just before it only a poll interval later. What is
 * measured is the rest: it begins with the poll that finds the event, or a poll interval after the commit if that poll
 * began later still. Between two of them stands what it is compared with, after the same pause.
 */
export const invalidateLatency: Measure = async ({ redis, redisUrl, quick }) => {
  const { db, url, stop } = await startDurable();
  const relay = new OtherRelay({ cache: CACHE, postgresUrl: url, redisUrl });
  const { cache, workflows, close } = threeLevels(redisUrl, CACHE);
  const client = new pg.Client({ connectionString: url });
  const psql = spawn('psql', ['-X', '-A', '-t', url]);
  psql.on('error', () => {});
  const samples = quick ? 100 : 300;
  const ids = Array.from({ length: DETECTORS }, (_, detector) => ({ detector, environment: 7 }));
  const missesMs: number[] = [];
  const roundTripsMs: number[] = [];
  const wholeMs: number[] = [];
  try {
    await client.connect();
    await makeItems(db, 'item', DETECTORS);
    await watchItems(db, 'item', CACHE);
    await relay.start();
    await committed(psql, 'select 1;');
    const missed = async (detector: number) => {
      const sinceMs = instantMs();
      while ((await workflows.lookup({ detector, environment: 7 })).outcome === 'hit') {
        if (instantMs() - sinceMs > LATE_MS) throw new Error(`A commit is to be seen. It has not in ${LATE_MS} ms.`);
      }
      return instantMs();
    };
    for (let round = 0; round < ROUNDS; round++) {
      const misses: number[] = [];
      const roundTrips: number[] = [];
      for (let sample = 0; sample < samples; sample++) {
        const detector = sample % DETECTORS;
        await workflows.fetchMany(ids);
        await cache.settled();
        // Anywhere between two polls.
        await sleep(POLL_MS * Math.random());
        await relay.claims();
        const committing = committed(psql, `update item set updated_at = now() where id = ${DETECTORS + detector};`);
        const missing = missed(detector);
        const committedAtMs = await committing;
        const missedAtMs = await missing;
        const [claim, ...more] = await claimed(relay);
        if (more.length > 0) throw new Error('One commit is one claim.');
        misses.push(missedAtMs - Math.min(claim!.polledAtMs, committedAtMs + POLL_MS));
        wholeMs.push(missedAtMs - committedAtMs);

        await sleep(POLL_MS * Math.random());
        const sinceMs = instantMs();
        await client.query('select updated_at from item where id = $1', [DETECTORS + detector]);
        await redis.set('invalidated', `${sinceMs}`);
        roundTrips.push(instantMs() - sinceMs);
      }
      missesMs.push(quantile(misses, 0.99));
      roundTripsMs.push(quantile(roundTrips, 0.99));
    }
    const ratios = missesMs.map((ms, round) => ms / roundTripsMs[round]!);
    return [
      {
        name: 'invalidate.latency',
        subject: 'commit by psql to a miss elsewhere, beyond the poll interval: p99',
        baseline: 'a SELECT and a SET, one after the other: p99',
        ratio: median(ratios),
        interval: intervalOfMedian(ratios),
        subjectMs: median(missesMs),
        baselineMs: median(roundTripsMs),
        commands: null,
        limit: { ratio: 4 },
        note:
          `medians of ${ROUNDS} rounds of ${samples}; with the wait for a poll, every ${POLL_MS} ms, the median was ` +
          `${median(wholeMs).toFixed(0)} ms and the p99 ${quantile(wholeMs, 0.99).toFixed(0)} ms`,
      },
    ];
  } finally {
    psql.stdin.end();
    await client.end();
    await close();
    relay.end();
    await stop();
  }
};

/** Has psql run a statement; resolves with the instant at which it said that it is committed. */
async function committed(psql: ChildProcessWithoutNullStreams, statement: string): Promise<number> {
  if (psql.pid === undefined)
    throw new Error('Commits are made by psql, which is not there. Install a PostgreSQL client.');
  psql.stdin.write(`${statement}\n`);
  const heard = new AbortController();
  const { signal } = heard;
  const refused = once(psql.stderr, 'data', { signal }).then(([message]) => {
    throw new Error(`psql: ${String(message)}`);
  });
  await Promise.race([once(psql.stdout, 'data', { signal }), refused]);
  const atMs = instantMs();
  heard.abort();
  return atMs;
}

/** A relay tells of a claim when it has committed it, which is after readers miss. */
async function claimed(relay: OtherRelay) {
  const sinceMs = instantMs();
  while (instantMs() - sinceMs < LATE_MS) {
    const claims = await relay.claims();
    if (claims.length > 0) return claims;
    await sleep(1);
  }
  throw new Error(`What readers miss was claimed. No claim was committed within ${LATE_MS} ms.`);
}
