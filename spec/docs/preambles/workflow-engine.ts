/** The workflow engine's tables with a detector and two workflows, an outbox, and a cache without declarations. */
import { GenerationalCache } from 'gencache';
import { knexSource } from 'gencache/knex';
import { redisStore } from 'gencache/redis';
import { workflowEngineMigrations } from 'gencache/workflow-engine';
import { db, end as endOfShop, redis } from './outbox.js';

export * from './outbox.js';

await db.migrate.latest({ migrationSource: workflowEngineMigrations, tableName: 'workflow_engine_migrations' });
await db('detector').insert({ id: 42, name: 'errors', type: 'error' });
await db('workflow').insert([
  { id: 1, name: 'page the team' },
  { id: 2, name: 'open a ticket' },
]);

export const engine = new GenerationalCache({
  ...{ name: 'workflow_engine', store: redisStore(redis), source: knexSource(db) },
  readDeadlineMs: 5_000, // a busy machine makes no bypass of a hit
});

export async function end(): Promise<void> {
  await engine.close();
  await endOfShop();
}
