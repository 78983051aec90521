import type { Knex } from 'knex';
import { GenerationalCache } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { knexSource } from '../../lib/knex/index.js';
import {
  ActionFilterCache,
  DetectorCache,
  WorkflowCache,
  WorkflowChanges,
  workflowEngineMigrations,
} from '../../lib/workflow-engine/index.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { lend } from '../support/lenders.js';
import { lendDatabase } from '../support/postgres.js';
import { lendRedis, uniqueName } from '../support/redis.js';

/** A database with the workflow engine's tables. */
export async function lendWorkflowDatabase(): Promise<Knex> {
  const db = await lendDatabase();
  await db.migrate.latest({ migrationSource: workflowEngineMigrations });
  return db;
}

/** One process of an application: its cache on the shared Redis, named `name`. */
export function lendWorkflowCache(db: Knex, name = uniqueName()) {
  const cache = lendCache(db, name);
  const workflows = new WorkflowCache(cache);
  return { name, cache, workflows, changes: new WorkflowChanges(workflows, db) };
}

/** The same with every cache of the engine. */
export function lendWorkflowEngine(db: Knex, name = uniqueName()) {
  const process = lendWorkflowCache(db, name);
  return { ...process, detectors: new DetectorCache(process.cache), filters: new ActionFilterCache(process.cache) };
}

/** A cache without declarations, named `name`. */
export function lendCache(db: Knex, name = uniqueName()) {
  const cache = new GenerationalCache({
    ...{ name, store: redisStore(lendRedis()), source: knexSource(db), readDeadlineMs: READ_DEADLINE_MS },
  });
  lend({ what: `the cache ${name}`, close: () => cache.close() });
  return cache;
}

/** What `read` returns, and how many entries had to be loaded for it. */
export async function counted<Value>(cache: ReturnType<typeof lendCache>, read: () => PromiseLike<Value>) {
  const before = cache.statistics.total('misses');
  const value = await read();
  await cache.settled();
  return { read: value, missed: cache.statistics.total('misses') - before };
}

/**
 * Two environments, detectors 1 to 4 (4 disabled), and workflows:
 * 1 in environment 1, 2 in environment 2, 3 in none, 4 in environment 1 but disabled, 5 in environment 1, unlinked.
 * Detector 1 has 1, 2, 3 and 4; detector 2 has 1 and 3; detector 3 none; detector 4 has 3.
 */
export async function seed(db: Knex): Promise<void> {
  await db('environment').insert([{ name: 'production' }, { name: 'staging' }]);
  await db('detector').insert([1, 2, 3, 4].map((id) => ({ name: `d${id}`, type: 'error', enabled: id !== 4 })));
  await db('workflow').insert([
    { name: 'w1', environment_id: 1 },
    { name: 'w2', environment_id: 2 },
    { name: 'w3', environment_id: null, config: { notify: ['on-call'] } },
    { name: 'w4', environment_id: 1, enabled: false },
    { name: 'w5', environment_id: 1 },
  ]);
  const links = [
    [1, 1],
    [1, 2],
    [1, 3],
    [1, 4],
    [2, 1],
    [2, 3],
    [4, 3],
  ];
  await db('detector_workflow').insert(links.map(([detector_id, workflow_id]) => ({ detector_id, workflow_id })));
}

export function names(lists: readonly (readonly { readonly name: string }[])[]): string[] {
  return lists.map((list) => list.map(({ name }) => name).join(' '));
}
