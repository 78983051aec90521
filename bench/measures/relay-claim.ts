import knex, { type Knex } from 'knex';
import { claimEvents } from '../../lib/knex/outbox/claim.js';
import { EVERYWHERE, type EventRanges } from '../../lib/knex/outbox/event-position.js';
import { Frontier } from '../../lib/knex/outbox/frontier.js';
import { installOutbox } from '../../lib/knex/install/install-outbox.js';
import { surveyOutbox } from '../../lib/knex/outbox/survey.js';
import type { Measure } from '../bench.js';
import { startDurable } from '../durable.js';
import { compare, type Side } from '../measure.js';

const DEAD = 400_000;
const EVENTS_PER_TRANSACTION = 1_000;
const CLAIMED = 100;
const CACHE = 'claimed';

/**
 * A claim of a hundred events behind 400,000 that were relayed while somebody's old snapshot keeps vacuum from taking
 * them away, beside one on an outbox that was always empty. Each is rolled back, so that the next finds the same.
 */
export const relayClaim: Measure = async ({ quick }) => {
  const { db, url, stop } = await startDurable();
  const dump = knex({ client: 'pg', connection: url, pool: { min: 0, max: 1 } });
  try {
    for (const schema of ['fresh', 'bloated']) await installOutbox(db, { schema });
    for (let dead = 0; dead < DEAD; dead += EVENTS_PER_TRANSACTION) await record(db, 'bloated', EVENTS_PER_TRANSACTION);
    const old = await dump.transaction({ isolationLevel: 'repeatable read' });
    await old.raw('select count(*) from bloated.gencache_outbox');
    await db.raw('delete from bloated.gencache_outbox');
    await db.raw('vacuum analyze bloated.gencache_outbox');
    const kept = await deadRows(db);
    if (kept < DEAD) throw new Error(`The old snapshot keeps ${DEAD} dead rows in the outbox. ${kept} are there.`);

    const fresh = await outbox(db, 'fresh');
    const bloated = await outbox(db, 'bloated');
    const plan = { pairs: quick ? 40 : 120, operations: 10 };
    const claim = await compare(bloated.claim, fresh.claim, plan);
    const poll = await compare(bloated.poll, fresh.poll, plan);
    const few = { pairs: 9, operations: 3 };
    const obvious = await compare(bloated.obviousClaim, fresh.obviousClaim, few);
    const first = await compare(bloated.firstPoll, fresh.firstPoll, few);
    await Promise.all([fresh.end(), bloated.end()]);
    await old.rollback();
    return [
      {
        name: 'relay.claim',
        subject: `claim of ${CLAIMED} events with ${DEAD.toLocaleString('en')} dead rows under an old snapshot`,
        baseline: 'the same on a fresh outbox',
        ...claim,
        commands: null,
        limit: { ratio: 3 },
        note:
          `the poll before it: ${poll.ratio.toFixed(2)} times a fresh one's ${poll.baselineMs.toFixed(1)} ms; without the ` +
          `frontier a claim takes ${obvious.subjectMs.toFixed(0)} ms, and so does a relay's first poll, and one a minute ` +
          `(${first.subjectMs.toFixed(0)} ms)`,
      },
    ];
  } finally {
    await dump.destroy();
    await stop();
  }
};

async function record(db: Knex, schema: string, events: number): Promise<void> {
  await db.raw(
    `insert into ??.gencache_outbox (cache, path, source, operation)
     select ?, 'detector=' || i, 'public.item', 'UPDATE' from generate_series(1, ?) as i`,
    [schema, CACHE, events],
  );
}

/** What a relay does there, which has polled before, and then a hundred events came. */
async function outbox(db: Knex, schema: string) {
  const options = { schema };
  const frontier = new Frontier();
  frontier.advance(await surveyOutbox(db, { cache: CACHE, ranges: frontier, outbox: options }));
  await record(db, schema, CLAIMED);
  let trx: Knex.Transaction | undefined;
  const end = async () => void (await trx?.rollback());
  const begin = async () => {
    await end();
    trx = await db.transaction();
  };
  const claiming = (from: EventRanges): Side => ({
    beforeEach: begin,
    run: async () => {
      const claimed = await claimEvents(trx!, { cache: CACHE, ranges: from, max: CLAIMED, outbox: options });
      if (claimed.length !== CLAIMED) throw new Error(`A claim finds ${CLAIMED} events: it found ${claimed.length}.`);
    },
  });
  const polling = (from: EventRanges): Side => ({
    run: () => surveyOutbox(db, { cache: CACHE, ranges: from, outbox: options }),
  });
  return {
    claim: claiming(frontier),
    obviousClaim: claiming(EVERYWHERE),
    poll: polling(frontier),
    firstPoll: polling(EVERYWHERE),
    end,
  };
}

async function deadRows(db: Knex): Promise<number> {
  await db.raw('create extension if not exists pgstattuple');
  const { rows } = await db.raw<{ rows: { dead: string }[] }>(
    `select dead_tuple_count as dead from pgstattuple('bloated.gencache_outbox')`,
  );
  return Number(rows[0]!.dead);
}
