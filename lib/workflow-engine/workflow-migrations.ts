import type { Knex } from 'knex';
import * as workflowEngine from '../../migrations/workflow-engine/001_workflow_engine.js';
import * as sourcesAndConditions from '../../migrations/workflow-engine/002_sources_and_conditions.js';

/** Immutable once released: later changes are migrations of their own. */
const MIGRATIONS: Readonly<Record<string, Knex.Migration>> = {
  gencache_workflow_engine_001: workflowEngine,
  gencache_workflow_engine_002: sourcesAndConditions,
};

/** The workflow engine's tables, for `migrationSource` of a Knex configuration: `environment`, `detector`, ... */
export const workflowEngineMigrations: Knex.MigrationSource<string> = {
  getMigrations: async () => Object.keys(MIGRATIONS),
  getMigrationName: (name) => name,
  getMigration: async (name) => MIGRATIONS[name]!,
};
