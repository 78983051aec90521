import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Measure } from '../bench.js';
import type { WritingOrder } from '../bumping-process.js';
import { intervalOfMedian, median, quantile } from '../measure.js';
import { instantMs, OtherProcess } from '../other-process.js';
import { threeLevels } from '../workload.js';

const CACHE = 'track.latency';
/** A beat that is late on a busy machine must not pass for a push. */
const LOCAL = { local: { mode: 'track', maxEntries: 10_000, heartbeatMs: 10_000 } } as const;
const ID = { detector: 1, environment: 7 };
const KEY = 'raw-push:1';
/** Each with a p99 of its own. */
const ROUNDS = 9;
/** Something is broken by then. */
const LATE_MS = 10_000;

/**
 * From a bump by another process until this one answers no more what it made old, against a plain SET by that process until
 * its push by CLIENT TRACKING is here. Both are waited for in the same way: a look in each turn of the event loop.
 */
export const trackLatency: Measure = async ({ redisUrl, quick }) => {
  const writer = new OtherProcess<WritingOrder>(new URL('../bumping-process.js', import.meta.url));
  const reader = threeLevels(redisUrl, CACHE, LOCAL);
  const pushes = new Redis(redisUrl, { protocol: 2 } as never);
  const samples = quick ? 100 : 500;
  const refusals: number[] = [];
  const raws: number[] = [];
  const typical: { readonly ours: number[]; readonly raw: number[] } = { ours: [], raw: [] };
  const latencyMs = async (order: WritingOrder, isSo: () => boolean): Promise<number> => {
    const writing = writer.ask(order);
    await until(async () => {
      await setImmediate();
      return isSo();
    });
    const seenAtMs = instantMs();
    return seenAtMs - ((await writing) as number);
  };
  try {
    await writer.ask({ open: { redisUrl, cache: CACHE } });
    const id = String(await pushes.client('ID'));
    await pushes.call('CLIENT', 'TRACKING', 'ON', 'REDIRECT', id, 'BCAST', 'PREFIX', KEY);
    await pushes.subscribe('__redis__:invalidate');
    let isPushed = false;
    pushes.on('messageBuffer', () => (isPushed = true));
    for (let round = 0; round < ROUNDS; round++) {
      const ours: number[] = [];
      const raw: number[] = [];
      const refused = async () => {
        await until(async () => {
          await reader.workflows.fetch(ID);
          await reader.cache.settled();
          return reader.workflows.peek(ID) !== undefined;
        });
        await sleep(1);
        ours.push(await latencyMs({ bump: ID }, () => reader.workflows.peek(ID) === undefined));
      };
      const pushed = async () => {
        isPushed = false;
        await sleep(1);
        raw.push(await latencyMs({ set: { key: KEY, value: String(raw.length) } }, () => isPushed));
      };
      for (let sample = 0; sample < samples; sample++) {
        for (const side of sample % 2 === 0 ? [refused, pushed] : [pushed, refused]) await side();
      }
      refusals.push(quantile(ours, 0.99));
      raws.push(quantile(raw, 0.99));
      typical.ours.push(median(ours));
      typical.raw.push(median(raw));
    }
    const ratios = refusals.map((ms, round) => ms / raws[round]!);
    return [
      {
        name: 'track.latency',
        subject: 'a bump until another process answers no more what it made old: p99',
        baseline: 'a SET until its push by CLIENT TRACKING is in another process: p99',
        ratio: median(ratios),
        interval: intervalOfMedian(ratios),
        subjectMs: median(refusals),
        baselineMs: median(raws),
        commands: null,
        limit: { ratio: 3 },
        note:
          `medians of ${ROUNDS} rounds of ${samples}; p50 ${median(typical.ours).toFixed(2)} ms ` +
          `against ${median(typical.raw).toFixed(2)} ms`,
      },
    ];
  } finally {
    writer.end();
    pushes.disconnect();
    await reader.close();
  }
};

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const sinceMs = performance.now();
  while (!(await isSo())) {
    if (performance.now() - sinceMs > LATE_MS) throw new Error(`It has not happened in ${LATE_MS} ms.`);
  }
}
