import type { Knex } from 'knex';
import { query } from '../knex/postgres/query.js';
import type { Id, WorkflowCache } from './workflow-cache.js';

/**
 * The bumps for each change, for writers that bump by hand after their commit (ladder step 1):
 *
 * | change                                       | bump                                                          |
 * |----------------------------------------------|---------------------------------------------------------------|
 * | detector updated or deleted                  | the detector: all its environments                            |
 * | workflow updated                             | each `{ detector, environment }` it is linked to, old and new |
 * | workflow created                             | nothing: nothing links to it yet                              |
 * | link created, deleted or moved               | the old and the new detector                                  |
 * | workflow or environment deleted              | the detectors of every workflow that goes with it             |
 * | TRUNCATE of any of them, any migration       | everything                                                    |
 *
 * A link's change bumps its detector, which its own columns name, and a workflow's links are looked up after the
 * commit, in a fresh snapshot: two transactions that each see only their own half still bump every scope both touch.
 */
export class WorkflowChanges {
  readonly #cache: WorkflowCache;
  readonly #db: Knex;

  constructor(cache: WorkflowCache, db: Knex) {
    this.#cache = cache;
    this.#db = db;
  }

  /** After a commit that updated or deleted these detectors. */
  async detectorsChanged(detectorIds: readonly Id[]): Promise<void> {
    await this.#cache.bumpDetectors(detectorIds, { cause: 'detector changed' });
  }

  /** After a commit that created, deleted or moved links of these detectors, old and new. */
  async linksChanged(detectorIds: readonly Id[]): Promise<void> {
    await this.#cache.bumpDetectors(detectorIds, { cause: 'link changed' });
  }

  /**
   * After a commit that updated a workflow. `environments`: those it was and is bound to, null for none.
   * One query, for the detectors linked to it now; a link that is deleted or created bumps its own detector.
   */
  async workflowUpdated(workflowId: Id, environments: readonly (Id | null)[]): Promise<void> {
    const detectors = await detectorsOfWorkflows(this.#db, [workflowId]);
    const scopes = detectors.flatMap((detector) => environments.map((environment) => ({ detector, environment })));
    await this.#cache.bumpEnvironments(scopes, { cause: 'workflow updated' });
  }

  /** After a commit that deleted workflows or an environment; `detectorIds` by `lockDetectorsOf...` in that transaction. */
  async workflowsDeleted(detectorIds: readonly Id[]): Promise<void> {
    await this.#cache.bumpDetectors(detectorIds, { cause: 'workflow deleted' });
  }

  /** After TRUNCATE, or an unknown change. */
  async everythingChanged(): Promise<void> {
    await this.#cache.bumpEverything({ cause: 'everything changed' });
  }
}

/** The detectors linked to these workflows. One query by index. */
export async function detectorsOfWorkflows(db: Knex, workflowIds: readonly Id[]): Promise<string[]> {
  const rows = await query<{ detector: string }>(
    db,
    'select distinct detector_id as detector from detector_workflow where workflow_id = any(?::bigint[])',
    [workflowIds.map(String)],
  );
  return rows.map(({ detector }) => detector);
}

/**
 * The detectors linked to workflows that this transaction is about to delete. Locks the workflows' rows, which waits for
 * open transactions that link them and stops further ones, and then reads the links: two queries. Under READ COMMITTED; an
 * older snapshot would not see the links of those transactions.
 */
export async function lockDetectorsOfWorkflows(trx: Knex.Transaction, workflowIds: readonly Id[]): Promise<string[]> {
  await query(trx, 'select from workflow where id = any(?::bigint[]) order by id for update', [
    workflowIds.map(String),
  ]);
  return detectorsOfWorkflows(trx, workflowIds);
}

/**
 * The same for an environment that this transaction is about to delete together with its workflows. Locks the
 * environment first, so that no workflow joins it meanwhile: four queries, under READ COMMITTED.
 */
export async function lockDetectorsOfEnvironment(trx: Knex.Transaction, environmentId: Id): Promise<string[]> {
  await query(trx, 'select from environment where id = ?::bigint for update', [String(environmentId)]);
  const rows = await query<{ id: string }>(trx, 'select id from workflow where environment_id = ?::bigint', [
    String(environmentId),
  ]);
  return lockDetectorsOfWorkflows(
    trx,
    rows.map(({ id }) => id),
  );
}
