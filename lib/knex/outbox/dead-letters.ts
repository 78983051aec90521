import type { Knex } from 'knex';
import type { UnresolvedEvent } from './event.js';
import { type OutboxOptions, qualifier } from './location.js';
import { query } from '../postgres/query.js';

/** An event that could not be understood, the scope that was bumped for it, and the reason. */
export interface DeadLetter {
  readonly event: UnresolvedEvent;
  readonly bumped: string;
  readonly reason: string;
}

/** Keeps events that could not be understood as dead letters. One statement. */
export async function keepDeadLetters(
  trx: Knex,
  letters: readonly DeadLetter[],
  options: OutboxOptions,
): Promise<void> {
  if (letters.length === 0) return;
  const at = qualifier(options);
  await query(
    trx,
    `insert into ${at}gencache_dead_letter
       (cache, xid, seq, path, lookup, args, source, operation, application, recorded_at, bumped, reason)
     select event.cache, event.xid, event.seq, event.path, event.lookup, event.args, event.source, event.operation,
       event.application, event.recorded_at, given.bumped, given.reason
     from unnest(?::jsonb[], ?::text[], ?::text[]) as given (row, bumped, reason),
       jsonb_populate_record(null::${at}gencache_outbox, given.row) as event
     on conflict do nothing`,
    [letters.map(({ event }) => event.row), letters.map(({ bumped }) => bumped), letters.map(({ reason }) => reason)],
  );
}
