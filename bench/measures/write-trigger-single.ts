import type { Knex } from 'knex';
import type { Bench, Measure } from '../bench.js';
import { type Durable, makeItems, startDurable, watchItems } from '../durable.js';
import { compare, ofRates } from '../measure.js';
import { emptied, OtherRelay } from '../relay.js';
import type { Row } from '../row.js';
import { Writers } from '../writers.js';

const CACHE = 'written';
const CLIENTS = 4;
const PAIRS = 9;

/**
 * Four clients that change single rows as fast as they can, of a table with triggers while a relay runs in a process
 * of its own, and of one of the same shape without triggers while none does. What a block has recorded is relayed
 * before the next one begins.
 */
export const writeTriggerSingle: Measure = async (bench) => {
  const durable = await startDurable();
  const { db, stop } = durable;
  try {
    await makeItems(db, 'watched', 100);
    await makeItems(db, 'plain', 100);
    await watchItems(db, 'watched', CACHE);
    return [
      await row(bench, durable, 'write.trigger.single', '', { atLeast: 0.8 }),
      await row(bench, durable, 'write.trigger.single.async', '-c synchronous_commit=off', { atLeast: 0.7 }),
    ];
  } finally {
    await stop();
  }
};

async function row(
  { redisUrl, quick }: Bench,
  { url, db }: Durable,
  name: string,
  settings: string,
  limit: NonNullable<Row['limit']>,
): Promise<Row> {
  const relay = new OtherRelay({ cache: CACHE, postgresUrl: url, redisUrl });
  const writers = await Writers.connect(url, CLIENTS, settings);
  const lags: number[] = [];
  try {
    const writes = await howMany(writers, quick ? 1_000 : 4_000);
    const rest = async (db: Knex) => {
      await relay.stop(db);
      await db.raw('vacuum watched, plain, gencache_outbox');
    };
    const comparison = await compare(
      {
        beforeBlock: async () => {
          await rest(db);
          await relay.start();
        },
        run: async () => writers.writeMany('watched', writes),
      },
      {
        beforeBlock: async () => {
          const sinceMs = performance.now();
          await emptied(db, CACHE);
          lags.push(performance.now() - sinceMs);
          await rest(db);
        },
        run: () => writers.writeMany('plain', writes),
      },
      { pairs: PAIRS, operations: 1, warmUpMs: 1 },
    );
    const perWrite = { subjectMs: comparison.subjectMs / writes, baselineMs: comparison.baselineMs / writes };
    const shown = (ms: number) => `${Math.round(1_000 / ms).toLocaleString('en')}/s`;
    return {
      name,
      subject: `single-row UPDATEs with triggers and a relay, ${CLIENTS} clients${settings && ', synchronous_commit off'}`,
      baseline: 'the same without both',
      ...ofRates(comparison),
      ...perWrite,
      commands: null,
      unit: 'rate',
      limit,
      note:
        `${shown(perWrite.subjectMs)} and ${shown(perWrite.baselineMs)}, medians of ${PAIRS} blocks of ` +
        `${writes.toLocaleString('en')}; then the relay was done within ${Math.ceil(Math.max(...lags))} ms`,
    };
  } finally {
    await writers.end();
    relay.end();
  }
}

/** Writes that take about so long. */
async function howMany(writers: Writers, blockMs: number): Promise<number> {
  await writers.writeMany('plain', 500);
  const startedAtMs = performance.now();
  await writers.writeMany('plain', 1_000);
  return Math.ceil((1_000 * blockMs) / (performance.now() - startedAtMs));
}
