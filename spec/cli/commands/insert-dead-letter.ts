import type { Knex } from 'knex';

/** Inserts a dead letter, as a relay does for an event that it does not understand. */
export async function insertDeadLetter(db: Knex, cache: string, reason = 'Its path is invalid.'): Promise<void> {
  await db('gencache_dead_letter').insert({
    cache,
    xid: '3',
    seq: 1,
    path: '!',
    lookup: 'gencache_lookup_1',
    args: '[{"id": 1}]',
    source: 'item',
    operation: 'UPDATE',
    application: 'psql',
    recorded_at: new Date(),
    bumped: '',
    reason,
  });
}
