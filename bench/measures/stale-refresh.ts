/**
 * A hot key past its TTL, with `staleMs`: 8 processes of 4 closed-loop readers each read it while one of them loads it anew,
 * beside the same reads of the fresh key.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Measure } from '../bench.js';
import { intervalOfMedian, median, quantile } from '../measure.js';
import { Readers } from '../readers.js';
import type { ReadingReport } from '../reading-process.js';

const PROCESSES = 8;
const READERS = 4;
/** Of each process in a block; a block takes far less than the TTL. */
const READS = 400;
const LOAD_MS = 50;
const TTL_MS = 2_000;

const p99 = (reports: readonly ReadingReport[]) =>
  quantile(
    reports.flatMap(({ latencies }) => latencies),
    0.99,
  );
const total = (reports: readonly ReadingReport[], of: 'loaded' | 'staleHits' | 'failed') =>
  reports.reduce((sum, report) => sum + report[of], 0);

export const staleRefresh: Measure = async ({ redisUrl, quick }) => {
  const opening = { redisUrl, cache: 'stale-refresh', ttlMs: TTL_MS, staleMs: 600_000, loadMs: LOAD_MS };
  const readers = await Readers.start(PROCESSES, opening);
  const block = () => readers.read(READERS, () => Array<number>(READS).fill(1));
  try {
    const stale: number[] = [];
    const fresh: number[] = [];
    const loads: number[] = [];
    const rounds = quick ? 8 : 20;
    // The first rounds compile what they run.
    for (let round = -2; round < rounds; round++) {
      const refreshed = await block();
      const hit = await block();
      if (round >= 0) {
        if (total(refreshed, 'staleHits') === 0) throw new Error('A key beyond its TTL is served stale, but was not.');
        if (total(hit, 'staleHits') + total(hit, 'loaded') > 0) throw new Error('A fresh key is hit, but was not.');
        if (total([...refreshed, ...hit], 'failed') > 0) throw new Error('Every read gets a value, but some failed.');
        stale.push(p99(refreshed));
        fresh.push(p99(hit));
        loads.push(total(refreshed, 'loaded'));
      }
      await sleep(TTL_MS + 50);
    }
    const ratios = stale.map((ms, round) => ms / fresh[round]!);
    const most = Math.max(...loads);
    return [
      {
        ...{ name: 'stale.refresh', subject: `p99 of ${PROCESSES} processes' reads of a key beyond its TTL` },
        ...{ baseline: 'the same of the fresh key', ratio: median(ratios), interval: intervalOfMedian(ratios) },
        ...{ subjectMs: median(stale), baselineMs: median(fresh), commands: null, limit: { ratio: 1.5 } },
      },
      {
        ...{ name: 'stale.refresh.loads', subject: 'loads of that key in all processes', baseline: 'one load' },
        ...{ ratio: most, interval: [Math.min(...loads), most], subjectMs: null, baselineMs: null, commands: null },
        ...{ unit: 'queries', limit: { ratio: 1, atLeast: 1 }, note: `the most of ${rounds} rounds` },
      },
    ];
  } finally {
    readers.end();
  }
};
