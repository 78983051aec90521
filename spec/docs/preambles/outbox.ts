/** The shop, and an outbox (step 2). */
import { installOutbox } from 'gencache/knex';
import { db } from './shop.js';

export * from './shop.js';

await installOutbox(db);
