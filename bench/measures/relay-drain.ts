import type { Redis } from 'ioredis';
import type { Knex } from 'knex';
import { formatGeneration, nonce } from '../../lib/model/generation.js';
import { childPath, generationKey, keyPrefix } from '../../lib/model/key.js';
import { generationTtl } from '../../lib/model/ttl.js';
import type { Bench, Measure } from '../bench.js';
import { startDurable } from '../durable.js';
import { intervalOfMedian, median } from '../measure.js';
import { OtherRelay } from '../relay.js';

/** As many as a relay claims at once. */
const BATCH = 1_000;
const ROUNDS = 3;
const CACHE = 'drained';

/**
 * How fast one relay empties an outbox, beside a loop of DELETEs that take as many rows each. The scopes are all distinct,
 * and each has a generation to move, as if each were cached.
 */
export const relayDrain: Measure = async ({ redis, redisUrl, quick }: Bench) => {
  const events = quick ? 100_000 : 1_000_000;
  const { db, url, stop } = await startDurable();
  const relay = new OtherRelay({ cache: CACHE, postgresUrl: url, redisUrl });
  const relayed: number[] = [];
  const deleted: number[] = [];
  let heapBytes = 0;
  try {
    await mint(redis, events);
    for (let round = 0; round < ROUNDS; round++) {
      const sides = [
        async () => {
          const drained = await relay.drain(events);
          heapBytes = Math.max(heapBytes, drained.heapBytes);
          relayed.push(drained.ms / events);
        },
        async () => void deleted.push((await deleteAll(db)) / events),
      ];
      for (const side of round % 2 === 0 ? sides : sides.toReversed()) {
        await record(db, events);
        await side();
        const left = await db('gencache_outbox').count('* as rows').first();
        if (Number(left!['rows']) > 0) throw new Error(`A drained outbox is empty. ${left!['rows']} events are left.`);
      }
    }
    const ratios = relayed.map((ms, round) => deleted[round]! / ms);
    const shown = (ms: number) => `${Math.round(1_000 / ms).toLocaleString('en')}/s`;
    return [
      {
        name: 'relay.drain',
        subject: `a relay drains ${events.toLocaleString('en')} events, in scopes all distinct`,
        baseline: `DELETE of the same rows, ${BATCH} a statement`,
        ratio: median(ratios),
        interval: intervalOfMedian(ratios),
        subjectMs: median(relayed),
        baselineMs: median(deleted),
        commands: null,
        unit: 'rate',
        limit: { atLeast: 0.35 },
        note:
          `${shown(median(relayed))} and ${shown(median(deleted))}, medians of ${ROUNDS}; ` +
          `the relay's heap never was above ${Math.ceil(heapBytes / 1e6)} MB`,
      },
    ];
  } finally {
    relay.end();
    await stop();
  }
};

async function mint(redis: Redis, detectors: number): Promise<void> {
  const prefix = keyPrefix(CACHE);
  for (let first = 1; first <= detectors; first += BATCH) {
    const pipeline = redis.pipeline();
    for (let id = first; id < first + BATCH; id++) {
      pipeline.set(
        generationKey(prefix, childPath('', 'detector', `${id}`)),
        formatGeneration(0, nonce()),
        'PX',
        generationTtl(0),
      );
    }
    await pipeline.exec();
  }
}

async function record(db: Knex, events: number): Promise<void> {
  for (let first = 1; first <= events; first += BATCH) {
    await db.raw(
      `insert into gencache_outbox (cache, path, source, operation)
       select ?, 'detector=' || i, 'public.item', 'UPDATE' from generate_series(?::int, ?::int) as i`,
      [CACHE, first, first + BATCH - 1],
    );
  }
  await db.raw('vacuum analyze gencache_outbox');
}

/** As any worker takes rows of a queue, but for what it does with them: found, locked and deleted by one statement. */
async function deleteAll(db: Knex): Promise<number> {
  const startedAtMs = performance.now();
  let deleted;
  do {
    ({ rowCount: deleted } = await db.raw<{ rowCount: number }>(
      `delete from gencache_outbox where ctid = any(array(
         select ctid from gencache_outbox where cache = ? order by xid, seq limit ? for update skip locked))`,
      [CACHE, BATCH],
    ));
  } while (deleted === BATCH);
  return performance.now() - startedAtMs;
}
