export { checkTriggers, repairTriggers, type TriggerProblem, type TriggerProblemKind } from './check-triggers.js';
export type { BumpColumns } from './declared-columns.js';
export type { Operation } from './trigger-definition.js';
export { TableLockedError } from '../postgres/table-locks.js';
export {
  type Change,
  changed,
  type ChangedColumn,
  type ChangeOptions,
  lookedUp,
  type LookedUpColumn,
  type LookupBuilder,
  onChangeOf,
  expression,
  type RowExpression,
  type TriggerBumpOptions,
} from './on-change.js';
export { type RemoveOptions, removeTriggers, uninstallTriggers } from './remove-triggers.js';
export { withoutEvents } from './without-events.js';
