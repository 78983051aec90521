import type { Knex } from 'knex';
import type { Measure } from '../bench.js';
import { makeItems, startDurable, watchItems } from '../durable.js';
import { intervalOfMedian, median } from '../measure.js';
import { emptied, OtherRelay } from '../relay.js';
import { Writers } from '../writers.js';

const CACHE = 'written';
const ROUNDS = 9;

/**
 * The WAL of single-row UPDATEs, one a commit, of a table with triggers and of one of the same shape without, and of the
 * relay that deletes the events. Pages are in the WAL as a whole once after a checkpoint, of which there is none here but
 * before the first round, which does not count.
 */
export const walBytes: Measure = async ({ redisUrl, quick }) => {
  const { db, url, stop } = await startDurable();
  const relay = new OtherRelay({ cache: CACHE, postgresUrl: url, redisUrl });
  const writers = await Writers.connect(url, 1);
  const writes = quick ? 1_000 : 5_000;
  try {
    await makeItems(db, 'watched', 100);
    await makeItems(db, 'plain', 100);
    await watchItems(db, 'watched', CACHE);
    await db.raw('alter system set autovacuum = off');
    await db.raw('select pg_reload_conf()');
    const rounds = [];
    for (let round = 0; round <= ROUNDS; round++) {
      rounds.push({
        own: await walOf(db, writes, () => writers.writeMany('plain', writes)),
        watched: await walOf(db, writes, () => writers.writeMany('watched', writes)),
        relayed: await walOf(db, writes, async () => {
          await relay.start();
          await emptied(db, CACHE);
        }),
      });
      await relay.stop(db);
      await db.raw('vacuum plain, watched, gencache_outbox');
    }
    const counted = rounds.slice(1);
    const own = median(counted.map((round) => round.own));
    const added = median(counted.map((round) => round.watched - round.own));
    const relayed = median(counted.map((round) => round.relayed));
    const ratios = counted.map((round) => (round.watched - round.own) / round.own);
    return [
      {
        name: 'wal.bytes',
        subject: 'WAL that triggers add to a single-row UPDATE',
        baseline: 'the WAL of the UPDATE itself',
        ratio: median(ratios),
        interval: intervalOfMedian(ratios),
        unit: 'bytes',
        subjectMs: null,
        baselineMs: null,
        subjectBytes: added,
        baselineBytes: own,
        commands: null,
        note: `medians of ${ROUNDS} rounds of ${writes.toLocaleString('en')}; the relay adds ${Math.round(relayed)} B an event`,
      },
    ];
  } finally {
    await writers.end();
    relay.end();
    await stop();
  }
};

/** Bytes for each write. */
async function walOf(db: Knex, writes: number, work: () => Promise<void>): Promise<number> {
  const position = async () => {
    const { rows } = await db.raw<{ rows: { at: string }[] }>(`select pg_current_wal_insert_lsn() - '0/0' as at`);
    return Number(rows[0]!.at);
  };
  const before = await position();
  await work();
  return ((await position()) - before) / writes;
}
