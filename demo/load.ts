import type { Knex } from 'knex';
import { createTables } from './migrations.js';
import type { World } from './world.js';

/** Rows of one INSERT: below PostgreSQL's 65,535 parameters, and small enough for a smooth progress bar. */
const BATCH_ROWS = 1_000;

/** Creates the tables by their migrations and fills them. `progress` gets the share that is done, 0 to 1. */
export async function load(
  db: Knex,
  world: World,
  stop: AbortSignal,
  progress: (done: number) => void = () => {},
): Promise<void> {
  await createTables(db);
  const tables: readonly (readonly [string, readonly object[]])[] = [
    // The tables give the ids, from 1 in the order of the rows, as the world does.
    ['environment', world.environments.map(({ name }) => ({ name }))],
    ['detector', world.detectors.map(({ name, type, enabled }) => ({ name, type, enabled }))],
    [
      'workflow',
      world.workflows.map(({ name, environmentId, enabled, config, updatedAt }) => ({
        name,
        environment_id: environmentId,
        enabled,
        config,
        updated_at: updatedAt,
      })),
    ],
    [
      'detector_workflow',
      world.links.map(({ detector, workflow }) => ({ detector_id: detector, workflow_id: workflow })),
    ],
  ];
  const total = tables.reduce((sum, [, rows]) => sum + rows.length, 0);
  let done = 0;
  for (const [table, rows] of tables) {
    for (let start = 0; start < rows.length; start += BATCH_ROWS) {
      stop.throwIfAborted();
      const batch = rows.slice(start, start + BATCH_ROWS);
      await db(table).insert(batch);
      progress((done += batch.length) / total);
    }
  }
  // Without statistics the planner takes the tables for small, and scans them.
  await db.raw('analyze environment, detector, workflow, detector_workflow');
}
