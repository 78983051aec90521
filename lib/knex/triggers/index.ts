export { checkTriggers, repairTriggers, type TriggerProblem, type TriggerProblemKind } from './check.js';
export type { Operation } from './definition.js';
export { TableLockedError } from './lock.js';
export {
  type Change,
  changed,
  type ChangedColumn,
  type ChangeOptions,
  type LookedUp,
  onChangeOf,
} from './on-change.js';
export { type RemoveOptions, removeTriggers, uninstallTriggers } from './uninstall.js';
export { withoutEvents } from './without-events.js';
