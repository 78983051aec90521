import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import type { WorkflowChanges } from '../lib/workflow-engine/index.js';
import type { Edit } from './edits.js';
import type { Oracle } from './oracle.js';

/** A writer as ladder step 1 has it: statements in a transaction, the commit, then the bump. */
export class Editor {
  readonly #db: Knex;
  readonly #changes: WorkflowChanges;
  readonly #oracle: Oracle;
  /** Edits committed and bumped. */
  edits = 0;

  constructor(db: Knex, changes: WorkflowChanges, oracle: Oracle) {
    this.#db = db;
    this.#changes = changes;
    this.#oracle = oracle;
  }

  /** Rolls back and rejects if a statement fails; rejects if the commit or the bump does. */
  async carryOut(edit: Edit): Promise<void> {
    const trx = await this.#db.transaction();
    const done = await edit(trx).catch(async (error: unknown) => {
      await trx.rollback();
      throw error;
    });
    const change = this.#oracle.committing(done.detectors, done.apply);
    await trx.commit();
    change.committed();
    await done.bump(this.#changes);
    change.bumped();
    this.edits++;
  }

  /** Carries out so many edits a second, one after another, until `stopped`. What came too late is caught up with. */
  async keepEditing(perSecond: number, next: () => Edit, stopped: AbortSignal): Promise<void> {
    const startedAtMs = performance.now();
    for (let turn = 1; !stopped.aborted; turn++) {
      const waitMs = startedAtMs + (turn * 1_000) / perSecond - performance.now();
      await sleep(Math.max(0, waitMs), undefined, { signal: stopped }).catch(() => {});
      if (!stopped.aborted) await this.carryOut(next());
    }
  }
}
