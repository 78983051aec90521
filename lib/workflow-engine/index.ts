export {
  detectorsOfWorkflows,
  lockDetectorsOfEnvironment,
  lockDetectorsOfWorkflows,
  WorkflowChanges,
} from './changes.js';
export { workflowEngineMigrations } from './migrations.js';
export { installWorkflowTriggers } from './triggers.js';
export { type Workflow, unionOfWorkflows } from './workflow.js';
export { type Id, WorkflowCache, type WorkflowCacheOptions } from './workflow-cache.js';
