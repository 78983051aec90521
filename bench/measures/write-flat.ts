import { setTimeout as sleep } from 'node:timers/promises';
import type { Measure } from '../bench.js';
import { makeItems, startDurable, watchItems } from '../durable.js';
import { intervalOfMedian, median, quantile } from '../measure.js';
import { OtherRelay } from '../relay.js';
import { Writers } from '../writers.js';

const CACHE = 'written';
/** Who tell what this machine reaches. */
const CLIENTS = 4;
/** Who serve what is offered: enough that arrivals wait for the database, and not for a connection. */
const CONNECTIONS = 16;
const OFFERED = 0.8;
const ROUNDS = 9;

/**
 * Writes that arrive by a schedule, whether or not the earlier ones are done, on a table with triggers while a relay
 * runs: four fifths of what four clients commit without both just before, and a tenth of that. A latency counts from
 * the instant the schedule says, so that a queue is seen for what it is.
 */
export const writeFlat: Measure = async ({ redisUrl, quick }) => {
  const { db, url, stop } = await startDurable();
  const relay = new OtherRelay({ cache: CACHE, postgresUrl: url, redisUrl });
  const closed = await Writers.connect(url, CLIENTS);
  const open = await Writers.connect(url, CONNECTIONS);
  const capacities: number[] = [];
  const shares: number[] = [];
  const high: number[] = [];
  const low: number[] = [];
  try {
    await makeItems(db, 'watched', 100);
    await makeItems(db, 'plain', 100);
    await watchItems(db, 'watched', CACHE);
    await commitsPerSecond(closed, 1_000);
    for (let round = 0; round < ROUNDS; round++) {
      await relay.stop(db);
      await db.raw('vacuum watched, plain, gencache_outbox');
      const capacity = await commitsPerSecond(closed, quick ? 1_000 : 3_000);
      await relay.start();
      const rate = OFFERED * capacity;
      const windows = [
        async () => {
          const { share, latencies } = await offer(open, rate, quick ? 2_000 : 5_000);
          shares.push(share);
          high.push(quantile(latencies, 0.99));
        },
        async () => low.push(quantile((await offer(open, rate / 10, quick ? 4_000 : 10_000)).latencies, 0.99)),
      ];
      for (const window of round % 2 === 0 ? windows : windows.toReversed()) await window();
      capacities.push(capacity);
    }
    const capacity = Math.round(median(capacities)).toLocaleString('en');
    const subject = `${100 * OFFERED} % of the commits/s reached without triggers, offered with triggers and a relay`;
    const shared = { subjectMs: null, baselineMs: null, commands: null };
    const ratios = high.map((ms, round) => ms / low[round]!);
    return [
      {
        ...shared,
        name: 'write.flat.share',
        subject,
        baseline: 'what was offered; the ratio is of what was committed in time',
        ratio: median(shares),
        interval: intervalOfMedian(shares),
        unit: 'share',
        limit: { atLeast: 0.95 },
        note: `${CLIENTS} clients reached ${capacity}/s without, the median of ${ROUNDS} rounds; the least share was ${Math.min(...shares).toFixed(2)}`,
      },
      {
        ...shared,
        name: 'write.flat.p99',
        subject: 'its p99, from the scheduled instant',
        baseline: 'p99 at a tenth of that rate',
        ratio: median(ratios),
        interval: intervalOfMedian(ratios),
        subjectMs: median(high),
        baselineMs: median(low),
        limit: { ratio: 3 },
        note: `medians of ${ROUNDS} rounds, on ${CONNECTIONS} connections`,
      },
    ];
  } finally {
    await Promise.all([closed.end(), open.end()]);
    relay.end();
    await stop();
  }
};

async function commitsPerSecond(writers: Writers, forMs: number): Promise<number> {
  const startedAtMs = performance.now();
  let writes = 0;
  while (performance.now() - startedAtMs < forMs) {
    await writers.writeMany('plain', 200);
    writes += 200;
  }
  return (1_000 * writes) / (performance.now() - startedAtMs);
}

/** Offers so many writes a second for so long; which share was committed by the end, and how long each took. */
async function offer(writers: Writers, rate: number, forMs: number) {
  const latencies: number[] = [];
  const offered = Math.floor((rate * forMs) / 1_000);
  const idle = Array.from({ length: writers.count }, (_, writer) => writer);
  const startedAtMs = performance.now();
  const endsAtMs = startedAtMs + forMs;
  let begun = 0;
  let inTime = 0;
  const dueAtMs = (arrival: number) => startedAtMs + (1_000 * arrival) / rate;
  const begin = (): void => {
    while (begun < offered && idle.length > 0 && dueAtMs(begun) <= performance.now()) {
      const writer = idle.pop()!;
      const scheduledAtMs = dueAtMs(begun++);
      void writers.write('watched', writer).then(() => {
        const nowMs = performance.now();
        latencies.push(nowMs - scheduledAtMs);
        if (nowMs <= endsAtMs) inTime++;
        idle.push(writer);
        begin();
      });
    }
  };
  while (latencies.length < offered) {
    begin();
    await sleep(1);
  }
  return { share: inTime / offered, latencies };
}
