/** The shop, an outbox, and the trigger on Knex's list of migrations; nothing waits in the outbox. */
import { installMigrationsTrigger } from 'gencache/knex';
import { asMigration, db } from './outbox.js';

export * from './outbox.js';

await asMigration('file:///000_trigger.js', { up: (db) => installMigrationsTrigger(db, { cache: 'shop' }) });
await db('gencache_outbox').delete();
