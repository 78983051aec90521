import { Redis } from 'ioredis';
import knex from 'knex';
import { GenerationalCache } from 'gencache';
import { redisStore } from 'gencache/redis';
import { knexSource, migrate } from 'gencache/knex';
import { type Workflow, WorkflowCache, workflowEngineMigrations } from 'gencache/workflow-engine';

const schema = `gencache_pack_${process.pid}`;
const db = knex({ client: 'pg', connection: process.env['DATABASE_URL']!, searchPath: [schema] });
const redis = new Redis(process.env['REDIS_URL']!);
const cache = new GenerationalCache({ name: schema, store: redisStore(redis), source: knexSource(db) });

try {
  await db.raw('create schema ??', [schema]);
  const [batch, names] = await migrate(db, cache, { migrationSource: workflowEngineMigrations });
  await db('detector').insert({ name: 'd', type: 'error' });
  await db('workflow').insert({ name: 'w' });
  await db('detector_workflow').insert({ detector_id: 1, workflow_id: 1 });
  const workflows = new WorkflowCache(cache);
  const lists: Workflow[][] = await workflows.getWorkflowsByDetectors([1], null);
  await cache.settled();
  await workflows.getWorkflowsByDetectors([1], null);
  if (lists[0]?.[0]?.name !== 'w' || cache.statistics.total('hits') !== 1) throw new Error('no hit');
  console.log(`strict TypeScript: ok, after batch ${batch} of ${names.length}`);
} finally {
  await cache.bump();
  await cache.close();
  redis.disconnect();
  await db.raw('drop schema if exists ?? cascade', [schema]);
  await db.destroy();
}
