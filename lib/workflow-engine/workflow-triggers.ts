import type { Knex } from 'knex';
import { changed, type ChangeOptions, onChangeOf } from '../knex/triggers/on-change.js';

/**
 * Installs the triggers that bump after each change of every writer (ladder step 3), in a migration after `installOutbox`:
 *
 * | change                                                  | bump                                                          |
 * |---------------------------------------------------------|---------------------------------------------------------------|
 * | detector updated or deleted                             | the detector: all its environments                            |
 * | workflow updated                                        | each `{ detector, environment }` it is linked to, old and new |
 * | workflow created                                        | nothing: nothing links to it yet                              |
 * | link created, deleted or moved (also by a cascade)      | the old and the new detector                                  |
 * | environment deleted                                     | the bumps of its cascade to workflows and links               |
 * | TRUNCATE of any of them                                 | everything                                                    |
 *
 * The links of a workflow are looked up after the commit. Where one transaction moves a workflow and another links it, and
 * each sees only its own half, the link bumps its whole detector, which its own columns name.
 *
 * In one transaction, or the caller's. Throws ConfigurationError, TableLockedError.
 */
export async function installWorkflowTriggers(
  db: Knex,
  options: Pick<ChangeOptions, 'cache' | 'schema' | 'outbox'>,
): Promise<void> {
  const at = options.schema === undefined ? {} : { schema: options.schema };
  await db.transaction(async (trx) => {
    await onChangeOf(trx, 'detector', { ...options, operations: ['update', 'delete'] })
      .bump({ detector: 'id' })
      .install();
    await onChangeOf(trx, 'workflow', { ...options, operations: ['update'] })
      .lookUp('detector_workflow', { workflow_id: 'id' }, at)
      .bump({ detector: 'detector_id', environment: changed('environment_id') })
      .install();
    await onChangeOf(trx, 'detector_workflow', options).bump({ detector: 'detector_id' }).install();
    await onChangeOf(trx, 'environment', { ...options, operations: ['truncate'] })
      .bump({})
      .install();
  });
}
