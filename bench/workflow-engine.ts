import type { Knex } from 'knex';
import { GenerationalCache, type PartitionedStore } from '../lib/index.js';
import { knexSource } from '../lib/knex/index.js';
import { WorkflowCache, workflowEngineMigrations } from '../lib/workflow-engine/index.js';
import { DEADLINES, ENVIRONMENT, fiveWorkflows, storeAt, TTL_MS } from './workload.js';

/** The workflow engine on a database in which each detector has five workflows bound to `ENVIRONMENT`, five to none. */
export async function seedWorkflows(db: Knex, detectors: number): Promise<void> {
  if (await db.schema.hasTable('workflow')) return;
  await db.migrate.latest({ migrationSource: workflowEngineMigrations });
  await db('environment').insert({ id: ENVIRONMENT, name: 'production' });
  await db('detector').insert(
    Array.from({ length: detectors }, (_, i) => ({ id: i + 1, name: `d${i + 1}`, type: 'error' })),
  );
  const workflows = [
    ...fiveWorkflows(ENVIRONMENT),
    ...fiveWorkflows(null).map((one) => ({ ...one, id: Number(one.id) + 5 })),
  ];
  await db('workflow').insert(
    workflows.map(({ id, name, environmentId, config, updatedAt }) => ({
      id,
      name,
      environment_id: environmentId,
      config: JSON.stringify(config),
      updated_at: updatedAt,
    })),
  );
  await db.raw(
    `insert into detector_workflow (detector_id, workflow_id)
     select detector.id, workflow.id from detector cross join workflow`,
  );
  await db.raw('analyze');
}

/** One process of the workflow engine. */
export function workflowEngine(at: string | PartitionedStore, db: Knex, name: string) {
  const source = knexSource(db);
  const cache = new GenerationalCache({ name, store: storeAt(at), source, ttlMs: TTL_MS, ...DEADLINES });
  return { cache, workflows: new WorkflowCache(cache), close: () => cache.close() };
}
