import type { Knex } from 'knex';
import { installMigrationsTrigger, installOutbox } from '../lib/knex/index.js';
import { installWorkflowTriggers, workflowEngineMigrations } from '../lib/workflow-engine/index.js';
import type { Tables } from './tables.js';

/** The demo's migrations: the engine's tables; the outbox with the triggers that record into it; and later ones. */
function migrationsUntil(last: string, cache = ''): Knex.MigrationSource<string> {
  const own: Record<string, Knex.Migration> = {
    invalidation: {
      async up(db) {
        await installOutbox(db);
        await installWorkflowTriggers(db, { cache });
        await installMigrationsTrigger(db, { cache });
      },
      async down() {},
    },
    throttle: {
      async up(db) {
        await db.schema.alterTable('workflow', (table) => table.text('owner').notNullable().defaultTo('platform'));
        await db.raw(`update workflow set config = config || '{"throttleMinutes": 60}'`);
      },
      async down() {},
    },
  };
  const names = Object.keys(own);
  return {
    async getMigrations(extensions) {
      const engine = await workflowEngineMigrations.getMigrations(extensions);
      return [...engine, ...names.slice(0, names.indexOf(last) + 1)];
    },
    getMigrationName: (name) => name,
    getMigration: async (name) => own[name] ?? workflowEngineMigrations.getMigration(name),
  };
}

/** Creates the tables, without triggers. */
export async function createTables(db: Knex): Promise<void> {
  await db.migrate.latest({ migrationSource: workflowEngineMigrations });
}

/** Installs the outbox and the triggers: from now on every change is recorded. */
export async function recordChanges(db: Knex, cache: string): Promise<void> {
  await db.migrate.latest({ migrationSource: migrationsUntil('invalidation', cache) });
}

/** The migration in the middle of the cold phase: a further column, and another throttle for every workflow. */
export const rewriteWorkflows = {
  async run(db: Knex): Promise<void> {
    await db.migrate.latest({ migrationSource: migrationsUntil('throttle') });
  },
  /** Makes the same change to the tables in memory. */
  apply({ workflows }: Tables): void {
    for (const [id, workflow] of workflows) {
      workflows.set(id, { ...workflow, config: { ...workflow.config, throttleMinutes: 60 } });
    }
  },
};
