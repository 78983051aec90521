/**
 * Cold entries and many processes: how many loads there are, and how long readers wait.
 *
 * `stampede`: 8 processes of 100 readers each want one cold key at the same instant, whose load takes 50 ms.
 * `stampede.global`: after a global bump 8 processes of 100 readers read 2,000 keys, each in an order of its own; a load
 * takes 20 ms, and each process has room for 10.
 */
import { Redis } from 'ioredis';
import { GenerationalCache } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import type { Measure } from '../bench.js';
import { quantile } from '../measure.js';
import { Readers } from '../readers.js';
import type { ReadingReport } from '../reading-process.js';
import type { Row } from '../row.js';

const PROCESSES = 8;
const READERS = 100;
const LOAD_MS = 50;
const KEYS = 2_000;
const GLOBAL_LOAD_MS = 20;
const LOADS_MAX = 10;
const TTL_MS = 600_000;

const sum = (reports: readonly ReadingReport[], of: (report: ReadingReport) => number) =>
  reports.reduce((total, report) => total + of(report), 0);

function shuffled(count: number): number[] {
  const keys = Array.from({ length: count }, (_, key) => key);
  for (let i = keys.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [keys[i], keys[j]] = [keys[j]!, keys[i]!];
  }
  return keys;
}

async function oneKey(redisUrl: string, rounds: number): Promise<Row[]> {
  const readers = await Readers.start(PROCESSES, { redisUrl, cache: 'stampede', ttlMs: TTL_MS, loadMs: LOAD_MS });
  try {
    const reports: ReadingReport[][] = [];
    // The first rounds compile what they run.
    for (let key = -5; key < rounds; key++) {
      const round = await readers.read(READERS, () => Array<number>(READERS).fill(key + 5));
      if (key >= 0) reports.push(round);
    }
    const loads = reports.map((round) => sum(round, ({ loaded }) => loaded));
    const failed = sum(reports.flat(), (report) => report.failed);
    if (failed > 0) throw new Error(`Every reader of a stampede gets its value, but ${failed} reads failed.`);
    const latencies = reports.flatMap((round) => round.flatMap((report) => report.latencies));
    const p99 = quantile(latencies, 0.99);
    const subject = `${PROCESSES} processes x ${READERS} readers of one cold key`;
    const most = Math.max(...loads);
    return [
      {
        ...{ name: 'stampede', subject, baseline: `one load of ${LOAD_MS} ms; the ratio is of loads`, ratio: most },
        ...{ interval: [Math.min(...loads), most], subjectMs: null, baselineMs: null, commands: null },
        ...{ unit: 'queries', limit: { ratio: 1, atLeast: 1 }, note: `the most of ${rounds} rounds` },
      },
      {
        ...{ name: 'stampede.p99', subject: `${subject}: the p99 of a read`, baseline: `one load of ${LOAD_MS} ms` },
        ...{ ratio: p99 / LOAD_MS, interval: [p99 / LOAD_MS, p99 / LOAD_MS], subjectMs: p99, baselineMs: LOAD_MS },
        ...{ commands: null, limit: { ratio: 2 }, note: `p50 ${quantile(latencies, 0.5).toFixed(0)} ms` },
      },
    ];
  } finally {
    readers.end();
  }
}

async function globalBump(redisUrl: string, rounds: number): Promise<Row> {
  const name = 'stampede-global';
  const readers = await Readers.start(PROCESSES, { redisUrl, cache: name, ttlMs: TTL_MS, loadMs: GLOBAL_LOAD_MS });
  const client = new Redis(redisUrl, { lazyConnect: true });
  const writer = new GenerationalCache({ name, store: redisStore(client) });
  try {
    await readers.read(READERS, () => shuffled(KEYS));
    const loads: number[] = [];
    let atOnce = 0;
    const p99: number[] = [];
    for (let round = 0; round < rounds; round++) {
      await writer.bump();
      const reports = await readers.read(READERS, () => shuffled(KEYS));
      const failed = sum(reports, (report) => report.failed);
      if (failed > 0) throw new Error(`Every reader after a global bump gets its value, but ${failed} reads failed.`);
      loads.push(sum(reports, ({ loaded }) => loaded) / KEYS);
      atOnce = Math.max(atOnce, ...reports.map(({ runningMax }) => runningMax));
      p99.push(
        quantile(
          reports.flatMap(({ latencies }) => latencies),
          0.99,
        ),
      );
    }
    if (atOnce > LOADS_MAX) throw new Error(`A process runs ${LOADS_MAX} loads at once at most, but ran ${atOnce}.`);
    const most = Math.max(...loads);
    return {
      ...{ name: 'stampede.global', subject: `a global bump, ${PROCESSES} processes on ${KEYS} warm keys` },
      ...{ baseline: 'one load of each key; the ratio is of loads', ratio: most, interval: [Math.min(...loads), most] },
      ...{ subjectMs: null, baselineMs: null, commands: null, unit: 'queries', limit: { ratio: 1.02, atLeast: 1 } },
      note: `the most of ${rounds} rounds; ${atOnce} loads at once in a process at most; p99 of a read ${Math.max(...p99).toFixed(0)} ms`,
    };
  } finally {
    readers.end();
    await writer.close();
    client.disconnect();
  }
}

export const stampede: Measure = async ({ redisUrl, quick }) => [
  ...(await oneKey(redisUrl, quick ? 20 : 50)),
  await globalBump(redisUrl, quick ? 5 : 10),
];
