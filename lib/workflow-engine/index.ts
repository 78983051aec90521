export { type ActionFilter, ActionFilterCache, type Condition } from './action-filter-cache.js';
export { installActionFilterTriggers } from './action-filter-triggers.js';
export { type DataSource, type Detector, DetectorCache } from './detector-cache.js';
export { installDetectorTriggers } from './detector-triggers.js';
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
