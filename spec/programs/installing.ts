/**
 * A process that installs the outbox and triggers when it starts. argv: the database's URL, a schema, a table.
 *
 * Waits for the advisory lock 20 to be free first, so that many of them begin at once. Prints `installed`.
 */
import knex from 'knex';
import { installOutbox, onChangeOf } from '../../lib/knex/index.js';

const [url, schema, table] = process.argv.slice(2) as [string, string, string];
const db = knex({ client: 'pg', connection: url, searchPath: [schema], pool: { min: 0, max: 1 } });
await db.raw('select pg_advisory_lock_shared(20), pg_advisory_unlock_shared(20)');
await installOutbox(db);
await onChangeOf(db, table, { cache: 'shop' }).bump({ item: 'id' }).install();
await db.destroy();
process.stdout.write('installed\n');
