import type { Knex } from 'knex';
import { lockInstallation } from '../triggers/lock.js';
import { type OutboxOptions, qualifier } from './place.js';

/**
 * Makes every statement that records events send a NOTIFY as well, or no more: relays that `listen` then need not wait
 * for their next poll. Off at first, and only ever a hint: NOTIFY serialises commits under heavy load, makes
 * PREPARE TRANSACTION fail, and does not pass a transaction pooler. In one transaction, or the caller's.
 */
export async function notifyRelays(db: Knex, on: boolean, options: OutboxOptions = {}): Promise<void> {
  const at = qualifier(options);
  await db.transaction(async (trx) => {
    await lockInstallation(trx);
    await dropNotify(trx, options);
    if (on) {
      await trx.raw(`
        create function ${at}gencache_notify() returns trigger
        language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
        begin
          perform pg_notify('gencache', cache) from (select distinct cache from recorded) as caches;
          return null;
        end $$`);
      await trx.raw(`
        create trigger gencache_notify after insert on ${at}gencache_outbox
        referencing new table as recorded for each statement execute function ${at}gencache_notify()`);
      await trx.raw(`alter table ${at}gencache_outbox enable always trigger gencache_notify`);
    }
  });
}

/** Takes it away, if it is there. */
export async function dropNotify(trx: Knex.Transaction, options: OutboxOptions): Promise<void> {
  const at = qualifier(options);
  const { rows } = await trx.raw<{ rows: { there: boolean }[] }>('select to_regprocedure(?) is not null as there', [
    `${at}gencache_notify()`,
  ]);
  // Not asked for by DROP IF EXISTS, which waits for everybody who writes, also where there is nothing to drop.
  if (rows[0]!.there) await trx.raw(`drop function ${at}gencache_notify() cascade`);
}
