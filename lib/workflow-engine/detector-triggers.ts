import type { Knex } from 'knex';
import { type ChangeOptions, onChangeOf } from '../knex/triggers/on-change.js';

/**
 * Installs the triggers that bump the sources of a `DetectorCache` after each change of every writer (ladder step 3), in a
 * migration after `installOutbox`:
 *
 * | change                                             | bump                           |
 * |----------------------------------------------------|--------------------------------|
 * | data source created, updated or deleted            | the source, old and new        |
 * | link created, deleted or moved (also by a cascade) | the old and the new source     |
 * | detector updated                                   | each source that it belongs to |
 * | detector created or deleted                        | nothing: its links bump        |
 * | TRUNCATE of any of them                            | everything                     |
 *
 * In one transaction, or the caller's. Throws ConfigurationError, TableLockedError.
 */
export async function installDetectorTriggers(
  db: Knex,
  options: Pick<ChangeOptions, 'cache' | 'schema' | 'outbox'>,
): Promise<void> {
  const at = options.schema === undefined ? {} : { schema: options.schema };
  const source = { source_type: 'type', source: 'source_id' };
  await db.transaction(async (trx) => {
    await onChangeOf(trx, 'data_source', options).bump(source).install();
    await onChangeOf(trx, 'data_source_detector', options)
      .lookUp('data_source', { id: 'data_source_id' }, at)
      .bump(source)
      .install();
    // Named, since `installWorkflowTriggers` watches the same table.
    await onChangeOf(trx, 'detector', { ...options, name: 'by_source', operations: ['update'] })
      .lookUp('data_source_detector', { detector_id: 'id' }, at)
      .thenLookUp('data_source', { id: 'data_source_id' }, at)
      .bump(source)
      .install();
  });
}
