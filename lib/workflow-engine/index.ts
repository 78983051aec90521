export {
  detectorsOfWorkflows,
  lockDetectorsOfEnvironment,
  lockDetectorsOfWorkflows,
  WorkflowChanges,
} from './workflow-changes.js';
export { workflowEngineMigrations } from './workflow-migrations.js';
export { installWorkflowTriggers } from './workflow-triggers.js';
export { type Workflow, unionOfWorkflows } from './workflow.js';
export { type Id, WorkflowCache, type WorkflowCacheOptions } from './workflow-cache.js';
