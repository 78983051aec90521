import type { Knex } from 'knex';
import { findRelation, functionsNamed, type Relation, triggersNamed } from '../postgres/catalog.js';
import {
  underInstallationLock,
  SHARE_ROW_EXCLUSIVE,
  ACCESS_EXCLUSIVE,
  underTableLocks,
} from '../postgres/table-locks.js';
import { type OutboxOptions, qualifier } from '../outbox/location.js';
import { missingOutbox } from '../outbox/missing-outbox.js';
import { NOTIFY_CHANNEL } from '../outbox/notify-channel.js';
import { quoted } from '../postgres/identifiers.js';
import { query } from '../postgres/query.js';

const NAME = 'gencache_notify';

const SOURCE = `
  begin
    perform pg_notify('${NOTIFY_CHANNEL}', cache) from (select distinct cache from recorded) as caches;
    return null;
  end`;

/**
 * Switches NOTIFY on or off for every statement that records events: with it, relays that `listen` do not wait for their
 * next poll. Off by default, and never more than a hint: NOTIFY serialises commits under heavy load, makes PREPARE
 * TRANSACTION fail, and does not pass a transaction pooler. Does nothing, and locks nothing, where NOTIFY is as wanted;
 * otherwise locks the outbox, and every writer waits for that. In one transaction, or the caller's. Throws
 * ConfigurationError without an outbox, and TableLockedError.
 */
export async function notifyRelays(db: Knex, on: boolean, options: OutboxOptions = {}): Promise<void> {
  qualifier(options);
  await underInstallationLock(db, async (trx) => {
    const outbox = await findRelation(trx, options.schema, 'gencache_outbox');
    if (outbox === undefined) throw missingOutbox(options, { use: 'A trigger on it sends the hints' });
    const found = await stateOf(trx, outbox);
    if (found === (on ? 'on' : 'off')) return;
    await underTableLocks(
      trx,
      [{ relation: outbox, mode: found === 'off' ? SHARE_ROW_EXCLUSIVE : ACCESS_EXCLUSIVE }],
      async () => {
        await dropNotify(trx, options);
        if (on) await create(trx, outbox);
      },
    );
  });
}

/** Drops the trigger and its function, if they exist. The caller holds a lock on the outbox. */
export async function dropNotify(trx: Knex.Transaction, options: OutboxOptions): Promise<void> {
  await query(trx, `drop function if exists ${qualifier(options)}${NAME}() cascade`);
}

/** `other`: there is a trigger or function, but not that of this release. */
async function stateOf(trx: Knex.Transaction, outbox: Relation): Promise<'on' | 'off' | 'other'> {
  const made = (await functionsNamed(trx, outbox.schema, [NAME])).get(NAME);
  if (made === undefined) return 'off';
  const triggers = await triggersNamed(trx, [NAME]);
  const sends = triggers.some(({ relation, enabled }) => relation.oid === outbox.oid && enabled === 'A');
  return sends && made.source === SOURCE ? 'on' : 'other';
}

async function create(trx: Knex.Transaction, { schema }: Relation): Promise<void> {
  const at = `${quoted(schema)}.`;
  await query(
    trx,
    `
    create function ${at}${NAME}() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$${SOURCE}$$`,
  );
  await query(
    trx,
    `
    create trigger ${NAME} after insert on ${at}gencache_outbox
    referencing new table as recorded for each statement execute function ${at}${NAME}()`,
  );
  await query(trx, `alter table ${at}gencache_outbox enable always trigger ${NAME}`);
}
