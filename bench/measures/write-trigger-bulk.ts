import type { Measure } from '../bench.js';
import { ITEMS, makeItems, startDurable, watchItems } from '../durable.js';
import { compare } from '../measure.js';
import type { Row } from '../row.js';

const CACHE = 'written';

/**
 * An UPDATE of all 10,000 rows of a table with triggers, beside one of the same shape without. The rows name 20
 * scopes, or 10,000, above the limit of 1,000, so that one event for all of them is recorded. No relay runs: events
 * are there for one only after the commit, which ends the time.
 */
export const writeTriggerBulk: Measure = async ({ quick }) => {
  const { db, stop } = await startDurable();
  const rows: Row[] = [];
  try {
    for (const [name, scopes, events, ratio] of [
      ['bulk20', 20, 20, 1.08],
      ['bulk10k', ITEMS, 1, 1.15],
    ] as const) {
      const watched = `${name}_watched`;
      const plain = `${name}_plain`;
      for (const table of [watched, plain]) await makeItems(db, table, scopes);
      await watchItems(db, watched, CACHE);
      const vacuum = async () => {
        await db.raw('truncate gencache_outbox');
        await db.raw(`vacuum ${watched}, ${plain}`);
        // Not to fall into a block: what the vacuum wrote.
        await db.raw('checkpoint');
      };
      const update = (table: string) => db.raw(`update ${table} set updated_at = clock_timestamp()`);
      await vacuum();
      await update(watched);
      const recorded = await db('gencache_outbox').select('path');
      if (recorded.length !== events) throw new Error(`${events} events are recorded. There are ${recorded.length}.`);
      const comparison = await compare(
        { beforeBlock: vacuum, run: () => update(watched) },
        { beforeBlock: vacuum, run: () => update(plain) },
        { pairs: quick ? 30 : 90, operations: 1 },
      );
      rows.push({
        name: `write.trigger.${name}`,
        subject: `UPDATE of ${ITEMS.toLocaleString('en')} rows that name ${scopes.toLocaleString('en')} scopes, triggers on`,
        baseline: 'the same without triggers',
        ...comparison,
        commands: null,
        limit: { ratio },
        note: `rows of 150 bytes, two indexes; ${events === 1 ? 'one event, for global' : `${events} events`}`,
      });
    }
    return rows;
  } finally {
    await stop();
  }
};
