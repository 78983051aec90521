import type { Knex } from 'knex';
import { type ChangeOptions, onChangeOf } from '../knex/triggers/on-change.js';

/**
 * Installs the triggers that bump the workflows of an `ActionFilterCache` after each change of every writer (ladder step 3),
 * in a migration after `installOutbox`:
 *
 * | change                                             | bump                                                   |
 * |----------------------------------------------------|--------------------------------------------------------|
 * | link created, deleted or moved (also by a cascade) | the old and the new workflow                           |
 * | group updated                                      | each workflow that it is linked to                     |
 * | group created or deleted                           | nothing: its links bump                                |
 * | condition created, updated, deleted or moved       | each workflow that its group is linked to, old and new |
 * | TRUNCATE of any of them                            | everything                                             |
 *
 * In one transaction, or the caller's. Throws ConfigurationError, TableLockedError.
 */
export async function installActionFilterTriggers(
  db: Knex,
  options: Pick<ChangeOptions, 'cache' | 'schema' | 'outbox'>,
): Promise<void> {
  const at = options.schema === undefined ? {} : { schema: options.schema };
  const workflow = { workflow: 'workflow_id' };
  await db.transaction(async (trx) => {
    await onChangeOf(trx, 'workflow_condition_group', options).bump(workflow).install();
    await onChangeOf(trx, 'condition_group', { ...options, operations: ['update'] })
      .lookUp('workflow_condition_group', { condition_group_id: 'id' }, at)
      .bump(workflow)
      .install();
    await onChangeOf(trx, 'condition', options)
      .lookUp('workflow_condition_group', { condition_group_id: 'condition_group_id' }, at)
      .bump(workflow)
      .install();
  });
}
