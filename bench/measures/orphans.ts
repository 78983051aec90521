import { setTimeout as sleep } from 'node:timers/promises';
import type { Measure } from '../bench.js';
import { usedMemory } from '../population.js';
import { startRedis } from '../../spec/support/servers/redis-server.js';
import { connect, threeLevels } from '../workload.js';

const BUMPS = 1_000;
const ENTRIES = 20;
/** Longer than the bumps take, so that all orphans are there at once. */
const TTL_MS = 15_000;
const EXPIRY_MAX_MS = 10_000;

/** What bumps leave behind: a namespace is bumped and read again, a thousand times, then left alone. */
export const orphans: Measure = async () => {
  // Of its own: what other measures left must not expire meanwhile.
  const server = await startRedis();
  const redis = await connect(server.url);
  const levels = threeLevels(server.url, 'orphans', { ttlMs: TTL_MS });
  const ids = Array.from({ length: ENTRIES }, (_, index) => ({ detector: 1, environment: index }));
  const fill = async () => {
    await levels.workflows.fetchMany(ids);
    await levels.cache.settled();
  };
  try {
    // Scripts and buffers are there from the first use on.
    await fill();
    await levels.detectors.bump({ detector: 1 });
    await redis.flushdb();
    const empty = await usedMemory(redis);
    await fill();
    const live = (await usedMemory(redis)) - empty;

    const startedAtMs = performance.now();
    for (let bump = 0; bump < BUMPS; bump++) {
      await levels.detectors.bump({ detector: 1 });
      await fill();
    }
    const elapsedMs = performance.now() - startedAtMs;
    if (elapsedMs > 0.85 * TTL_MS) {
      throw new Error(`All orphans are to be seen at once: the bumps took ${Math.round(elapsedMs)} ms of ${TTL_MS}.`);
    }
    const peak = (await usedMemory(redis)) - empty - live;

    await sleep(TTL_MS);
    // Redis takes what nobody asks for in its own time: all but the generations.
    const deadline = performance.now() + EXPIRY_MAX_MS;
    while ((await redis.dbsize()) > 2 * ENTRIES && performance.now() < deadline) await sleep(100);
    const left = (await usedMemory(redis)) - empty;
    const row = (name: string, subject: string, bytes: number, note: string) => ({
      name,
      subject,
      baseline: `its ${ENTRIES} live entries and their generations`,
      ratio: bytes / live,
      interval: [bytes / live, bytes / live] as const,
      subjectMs: null,
      baselineMs: null,
      commands: null,
      unit: 'bytes' as const,
      subjectBytes: bytes,
      baselineBytes: live,
      note,
    });
    return [
      row(
        'memory.orphans',
        `orphans of ${BUMPS.toLocaleString('en')} bumps of a warm namespace, each read again`,
        peak,
        `${Math.round(peak / BUMPS / ENTRIES)} bytes each, until its TTL`,
      ),
      row(
        'memory.orphans.afterTtl',
        'what is left one TTL later',
        left,
        'the generations, which live for an hour at least',
      ),
    ];
  } finally {
    redis.disconnect();
    await levels.close();
    await server.stop();
  }
};
