import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import type { Edit } from './edits.js';
import { rewriteWorkflows } from './migrations.js';
import type { Change, Oracle } from './oracle.js';

const LOOK_EVERY_MS = 5;

/**
 * A writer without any code for a cache: statements in a transaction, and the commit. Triggers record the changes, and a
 * relay bumps them. The next edit begins when the changes of the last one have been bumped, that is, when the outbox is
 * empty.
 */
export class Editor {
  readonly #db: Knex;
  readonly #cache: string;
  readonly #oracle: Oracle;
  /** Edits committed and bumped, migrations among them. */
  edits = 0;

  /** `cache`: the cache whose events in the outbox the editor waits for. */
  constructor(db: Knex, cache: string, oracle: Oracle) {
    this.#db = db;
    this.#cache = cache;
    this.#oracle = oracle;
  }

  /** Makes one edit. Rolls back and rejects if a statement fails; rejects if the commit fails. */
  async carryOut(edit: Edit): Promise<void> {
    const trx = await this.#db.transaction();
    const done = await edit(trx).catch(async (error: unknown) => {
      await trx.rollback();
      throw error;
    });
    const change = this.#oracle.committing(done.detectors, done.apply);
    void trx.commit();
    await trx.executionPromise;
    await this.#follow(change);
  }

  /** Runs a Knex migration that changes every workflow. */
  async migrate(): Promise<void> {
    const all = [...this.#oracle.tables.detectors.keys()];
    const change = this.#oracle.committing(all, (tables) => rewriteWorkflows.apply(tables));
    await rewriteWorkflows.run(this.#db);
    await this.#follow(change);
  }

  /** Makes so many edits a second, one after another, until `stopped`. Later edits make up for a slow one. */
  async keepEditing(perSecond: number, next: () => Promise<void>, stopped: AbortSignal): Promise<void> {
    const startedAtMs = performance.now();
    for (let turn = 1; !stopped.aborted; turn++) {
      const waitMs = startedAtMs + (turn * 1_000) / perSecond - performance.now();
      await sleep(Math.max(0, waitMs), undefined, { signal: stopped }).catch(() => {});
      if (!stopped.aborted) await next();
    }
  }

  /** Follows a change from its commit until the outbox is empty. */
  async #follow(change: Change): Promise<void> {
    change.committed();
    await this.#relayed();
    change.bumped();
    this.edits++;
  }

  async #relayed(): Promise<void> {
    while ((await this.#db('gencache_outbox').where({ cache: this.#cache }).first('seq')) !== undefined) {
      await sleep(LOOK_EVERY_MS);
    }
  }
}
