import knex, { type Knex } from 'knex';
import { privatePostgres } from './postgres.js';
import { installOutbox } from '../../lib/knex/index.js';
import { eventually } from './deferred.js';
import { createItems } from './shop.js';

/** A private PostgreSQL, with items, an outbox, and a standby that never answers. For a suite: starting it takes a second. */
export async function standbyless() {
  const server = await privatePostgres({ settings: { synchronous_standby_names: 'nobody' }, for: 'suite' });
  const setUp = knex({ client: 'pg', connection: server.url });
  await installOutbox(setUp);
  await createItems(setUp);
  await setUp.destroy();
  return {
    url: server.url,
    /** Work whose COMMIT waits for that standby: it is carried out, and no session sees it. */
    hangs: (work: (trx: Knex.Transaction) => Promise<unknown>) => async (trx: Knex.Transaction) => {
      await trx.raw('set local synchronous_commit = on');
      await work(trx);
    },
    /** Resolves when a COMMIT waits, other than these, with the process that carries it out. */
    hanging: (db: Knex, ...others: number[]) =>
      eventually(async () => {
        const { rows } = await db.raw<{ rows: { pid: number }[] }>(
          `select pid from pg_stat_activity where wait_event = 'SyncRep' and pid <> all(?)`,
          [others],
        );
        if (rows.length === 0) throw new Error('No COMMIT waits.');
        return rows[0]!.pid;
      }),
    /** Lets it wait no longer. */
    release: (db: Knex, pid: number) => db.raw('select pg_cancel_backend(?)', [pid]),
    /** After each spec: one that failed half-way is not to hold up the next. */
    releaseAll: (db: Knex) =>
      db.raw(`select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'`),
  };
}
