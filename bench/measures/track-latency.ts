import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Measure } from '../bench.js';
import { intervalOfMedian, median, quantile } from '../measure.js';
import { threeLevels } from '../workload.js';

const LOCAL = { local: { mode: 'track', maxEntries: 10_000 } } as const;
const ID = { detector: 1, environment: 7 };
/** Each with a p99 of its own. */
const ROUNDS = 9;
/** Something is broken by then. */
const LATE_MS = 10_000;

/**
 * From a bump by one connection until a process with others answers no more what it made old, against the push of a plain SET
 * by CLIENT TRACKING. All of them are in this process, so that one clock tells; a bump that changes the store is a command of
 * the library, beside a SET.
 */
export const trackLatency: Measure = async ({ redisUrl, redis, quick }) => {
  const writer = threeLevels(redisUrl, 'track.latency');
  const reader = threeLevels(redisUrl, 'track.latency', LOCAL);
  const pushes = new Redis(redisUrl, { protocol: 2 } as never);
  const samples = quick ? 100 : 500;
  const refusals: number[] = [];
  const raws: number[] = [];
  try {
    const id = String(await pushes.client('ID'));
    await pushes.call('CLIENT', 'TRACKING', 'ON', 'REDIRECT', id, 'BCAST', 'PREFIX', 'raw-push:');
    await pushes.subscribe('__redis__:invalidate');
    let pushed: () => void = () => {};
    pushes.on('messageBuffer', () => pushed());
    for (let round = 0; round < ROUNDS; round++) {
      const ours: number[] = [];
      const raw: number[] = [];
      for (let sample = 0; sample < samples; sample++) {
        await until(async () => {
          await reader.workflows.fetch(ID);
          await reader.cache.settled();
          return reader.workflows.peek(ID) !== undefined;
        });
        let sinceMs = performance.now();
        const bumping = writer.environments.bump(ID);
        await until(async () => {
          await setImmediate();
          return reader.workflows.peek(ID) === undefined;
        });
        ours.push(performance.now() - sinceMs);
        await bumping;

        const arrived = new Promise<void>((resolve) => (pushed = resolve));
        sinceMs = performance.now();
        const setting = redis.set('raw-push:1', `${sample}`);
        await arrived;
        raw.push(performance.now() - sinceMs);
        await setting;
        await sleep(1);
      }
      refusals.push(quantile(ours, 0.99));
      raws.push(quantile(raw, 0.99));
    }
    const ratios = refusals.map((ms, round) => ms / raws[round]!);
    return [
      {
        name: 'track.latency',
        subject: 'a bump until another cache answers no more what it made old: p99',
        baseline: 'a SET until its push by CLIENT TRACKING: p99',
        ratio: median(ratios),
        interval: intervalOfMedian(ratios),
        subjectMs: median(refusals),
        baselineMs: median(raws),
        commands: null,
        limit: { ratio: 3 },
        note: `medians of ${ROUNDS} rounds of ${samples}`,
      },
    ];
  } finally {
    pushes.disconnect();
    await Promise.all([writer.close(), reader.close()]);
  }
};

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const sinceMs = performance.now();
  while (!(await isSo())) {
    if (performance.now() - sinceMs > LATE_MS) throw new Error(`It has not happened in ${LATE_MS} ms.`);
  }
}
