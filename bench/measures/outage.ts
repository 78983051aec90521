/**
 * What readers get while Redis is away, and when it is back.
 *
 * 20 closed-loop readers of 40 keys, picked at random, on a source that takes 20 ms a load. Redis is killed (`refused`), or
 * stopped so that it answers nothing (`frozen`). What counts begins one second after that. Beside it the same readers call
 * the source themselves: no cache at all.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { type Entry, GenerationalCache, integer, memoryStore, type Store } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { type RedisServer, startRedis } from '../../spec/support/servers/redis-server.js';
import type { Measure } from '../bench.js';
import { intervalOfMedian, median } from '../measure.js';
import { startOutageRivals } from '../rivals/outage.js';
import type { Row } from '../row.js';

const READERS = 20;
const KEYS = 40;
const LOAD_MS = 20;
const UNCOUNTED_MS = 1_000;
const BLOCK_MS = 1_000;
/** The default, for one entry alone: four fifths of 10. */
const LOADS_MAX = 8;

type Read = (key: number) => Promise<unknown>;

/** Latencies of reads that began in a block of time, in ms. */
async function readFor(read: Read, ms: number): Promise<number[]> {
  const latencies: number[] = [];
  const end = performance.now() + ms;
  const reader = async () => {
    for (;;) {
      const startedAtMs = performance.now();
      if (startedAtMs >= end) return;
      await read(Math.floor(Math.random() * KEYS));
      latencies.push(performance.now() - startedAtMs);
    }
  };
  await Promise.all(Array.from({ length: READERS }, reader));
  return latencies;
}

async function load(): Promise<void> {
  await sleep(LOAD_MS);
}

function open(store: Store, name: string) {
  const loads = { running: 0, runningMax: 0 };
  const cache = new GenerationalCache({ name, store, ttlMs: 600_000 });
  const value = cache.namespace('key', integer()).one('value', {
    async load(ids) {
      loads.runningMax = Math.max(loads.runningMax, ++loads.running);
      await load();
      loads.running--;
      return ids.map(({ key }) => ({ key, value: 'x'.repeat(600) }));
    },
    by: ({ key }) => ({ key }),
  });
  return { cache, value, loads };
}

async function warm(value: Entry<{ key: number }, unknown>, cache: { settled(): Promise<void> }): Promise<void> {
  await value.fetchMany(Array.from({ length: KEYS }, (_, key) => ({ key })));
  await cache.settled();
}

export const FAULTS: Readonly<Record<string, (server: RedisServer) => Promise<void>>> = {
  refused: (server) => server.kill('SIGKILL'),
  frozen: async (server) => server.pause(),
};

/** Blocks of a reader that works in the outage, and of the source alone, in turns. */
async function inTurns(read: Read, blocks: number) {
  const ours: number[][] = [];
  const alone: number[][] = [];
  for (let block = 0; block < blocks; block++) {
    if (block % 2 === 0) ours.push(await readFor(read, BLOCK_MS));
    alone.push(await readFor(load, BLOCK_MS));
    if (block % 2 === 1) ours.push(await readFor(read, BLOCK_MS));
  }
  const ratios = ours.map((latencies, i) => median(latencies) / median(alone[i]!));
  const rates = ours.map((latencies, i) => latencies.length / alone[i]!.length);
  return {
    ratio: median(ratios),
    interval: intervalOfMedian(ratios),
    subjectMs: median(ours.flat()),
    baselineMs: median(alone.flat()),
    throughput: median(rates),
  };
}

const BASELINE = `the loader alone, ${LOAD_MS} ms; ${READERS} readers of ${KEYS} keys`;

async function ownOutage(fault: string, blocks: number): Promise<Row[]> {
  const server = await startRedis();
  const client = new Redis(server.url, { lazyConnect: true });
  const { cache, value } = open(redisStore(client), `outage-${fault}`);
  try {
    await warm(value, cache);
    await FAULTS[fault]!(server);
    const first = await readFor((key) => value.fetch({ key }), UNCOUNTED_MS);
    const { throughput, ...measured } = await inTurns((key) => value.fetch({ key }), blocks);
    const subject = `read while Redis is ${fault}, p50 beyond the first second`;
    return [
      {
        ...{ name: `outage.${fault}`, subject, baseline: BASELINE, ...measured, commands: null, limit: { ratio: 1.1 } },
        note: `the slowest read of the first second: ${Math.max(...first).toFixed(0)} ms`,
      },
      {
        ...{ name: `outage.${fault}.rate`, subject: `reads/s while Redis is ${fault}`, baseline: BASELINE },
        ...{ ratio: throughput, interval: [throughput, throughput], subjectMs: null, baselineMs: null, commands: null },
        ...{ unit: 'rate', limit: { atLeast: 0.9 } },
      },
    ];
  } finally {
    server.resume();
    await cache.close();
    client.disconnect();
    await server.stop();
  }
}

/** 100 fetches of one key spread over one load of 300 ms. */
async function joins(name: string, subject: string, store: Store, bound?: number): Promise<Row> {
  const cache = new GenerationalCache({ name, store, ...(bound !== undefined && { maxStalenessMs: bound }) });
  let loads = 0;
  let version = 0;
  const value = cache.namespace('key', integer()).one('value', {
    async load(ids) {
      loads++;
      const read = version;
      await sleep(300);
      return ids.map(({ key }) => ({ key, version: read }));
    },
    by: ({ key }) => ({ key }),
  });
  await value.lookup({ key: 1 }); // the store has failed, or was found to have no relay
  const startedAtMs = performance.now();
  const fetches: Promise<void>[] = [];
  for (let i = 0; i < 100; i++) {
    await sleep(Math.max(0, startedAtMs + i * 2.9 - performance.now()));
    const begunAt = ++version;
    fetches.push(
      value.fetch({ key: 1 }).then((row) => {
        if (row!.version < begunAt) throw new Error('A reader got what is older than itself.');
      }),
    );
  }
  await Promise.all(fetches);
  await cache.close();
  return {
    ...{ name, subject, baseline: 'one load of 300 ms; the ratio is of loads', ratio: loads, interval: [loads, loads] },
    ...{ subjectMs: null, baselineMs: null, commands: null, unit: 'queries', limit: { ratio: 3 } },
  };
}

async function recovery(): Promise<Row> {
  const server = await startRedis();
  const client = new Redis(server.url, { lazyConnect: true });
  const { cache, value, loads } = open(redisStore(client), 'outage-recovery');
  try {
    await warm(value, cache);
    server.pause();
    await readFor((key) => value.fetch({ key }), 3_000);
    server.resume();
    const backAtMs = performance.now();
    const counts = () => ({
      hits: cache.statistics.total('hits'),
      all: cache.statistics.total('hits') + cache.statistics.total('misses') + cache.statistics.total('bypasses'),
    });
    for (;;) {
      const before = counts();
      await readFor((key) => value.fetch({ key }), 100);
      const after = counts();
      if ((after.hits - before.hits) / (after.all - before.all) >= 0.9) break;
    }
    if (loads.runningMax > LOADS_MAX)
      throw new Error(`A cache runs ${LOADS_MAX} loads at once at most, but ran ${loads.runningMax}.`);
    const ms = performance.now() - backAtMs;
    return {
      ...{ name: 'outage.recovery', subject: 'from Redis’ return to a hit ratio of 0.9', commands: null },
      ...{ baseline: 'the longest interval between two probes of the breaker, 1 s', ratio: ms / 1_000 },
      ...{ interval: [ms / 1_000, ms / 1_000], subjectMs: ms, baselineMs: 1_000 },
      note: `${loads.runningMax} loads at once at most, of ${LOADS_MAX}`,
    };
  } finally {
    server.resume();
    await cache.close();
    client.disconnect();
    await server.stop();
  }
}

export const outage: Measure = async ({ quick }) => {
  const blocks = quick ? 8 : 20;
  const rows: Row[] = [];
  for (const fault of Object.keys(FAULTS)) rows.push(...(await ownOutage(fault, blocks)));
  const down = new Redis('redis://127.0.0.1:1', { lazyConnect: true });
  rows.push(await joins('outage.joins.down', '100 fetches of one key in 300 ms, Redis down', redisStore(down)));
  down.disconnect();
  rows.push(
    await joins(
      'outage.joins.norelay',
      '100 fetches of one key in 300 ms, a bound without a relay',
      memoryStore(),
      1_000,
    ),
  );
  rows.push(await recovery());
  for (const fault of Object.keys(FAULTS)) {
    for (const start of startOutageRivals) {
      const server = await startRedis();
      const rival = await start(server.url, load);
      try {
        for (let key = 0; key < KEYS; key++) await rival.read(key);
        await FAULTS[fault]!(server);
        const read: Read = (key) => rival.read(key).catch(() => undefined);
        await readFor(read, UNCOUNTED_MS);
        let failed = 0;
        const counting: Read = (key) => rival.read(key).catch(() => failed++);
        const { throughput, ...measured } = await inTurns(counting, Math.min(blocks, 8));
        rows.push({
          ...{ name: `rival.outage.${fault}.${rival.name}`, subject: rival.subject, baseline: BASELINE, ...measured },
          ...{ commands: null, note: `${throughput.toFixed(2)} of the rate; ${failed} reads failed` },
        });
      } finally {
        server.resume();
        await rival.close();
        await server.stop();
      }
    }
  }
  return rows;
};
