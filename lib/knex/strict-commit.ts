import type { Knex } from 'knex';
import { withDeadline } from '../async/deadline.js';
import { GencacheError } from '../errors/errors.js';
import { generationKey } from '../model/key.js';
import type { Partition } from '../ports/partitions.js';
import type { BumpTarget, Committed } from '../ports/source.js';
import type { BumpServers } from '../write/bump-scopes.js';
import { Quarantine } from '../write/quarantine.js';
import type { CommitStrategy } from './commit-strategy.js';
import type { OutboxEvent } from './outbox/event.js';
import type { OutboxOptions } from './outbox/location.js';
import { scopesOf } from './outbox/settle.js';
import { eventsOf } from './outbox/transaction-events.js';
import type { TransactionId } from './outbox/transaction-id.js';

/** The quarantine of a strict commit could not be set. Nothing was committed. */
export class QuarantineError extends GencacheError {
  constructor(cause: Error) {
    super(
      'QUARANTINE',
      `The quarantine before a strict commit failed: ${cause.message} The transaction was rolled back; nothing was ` +
        'committed. Try again, or commit without `strict`.',
      { cause },
    );
  }
}

export interface StrictCommitOptions {
  readonly bumps: BumpTarget;
  readonly outbox: OutboxOptions;
  /** How long the quarantine lasts without a renewal, in ms. */
  readonly quarantineMs: number;
}

/**
 * A commit under quarantine (ladder step 4b; docs/protocol.md, rule 12): from before COMMIT until the bump after it, every
 * scope that the transaction changes is under quarantine (`write/quarantine.ts`).
 *
 * If the quarantine did not stand throughout, the outcome is `degraded`: the commit was a plain one.
 */
export class StrictCommit implements CommitStrategy {
  readonly #cache: string;
  readonly #outbox: OutboxOptions;
  readonly #bumps: BumpTarget;
  readonly #quarantine: Quarantine;
  /** The partitions of the store that were away before BEGIN. */
  #away: ReadonlySet<Partition> = new Set();
  /** PostgreSQL ends a session that is silent for this long between its last statement and COMMIT. */
  readonly #silenceMaxMs: number;
  #lookups: readonly OutboxEvent[] = [];

  constructor({ bumps, outbox, quarantineMs }: StrictCommitOptions) {
    const { present, cache, bumpDeadlineMs: deadlineMs, foreign: onForeign } = bumps;
    this.#bumps = bumps;
    this.#cache = cache;
    this.#outbox = outbox;
    this.#silenceMaxMs = Math.floor(quarantineMs / 2);
    const setWithinMs = this.#silenceMaxMs;
    this.#quarantine = new Quarantine({ present, cache, deadlineMs, lastsMs: quarantineMs, setWithinMs, onForeign });
  }

  /**
   * Waits for a store that is known to be away, for as long as a quarantine would. A transaction that records nothing needs
   * no store, so it begins in any case. No command while the store is there. Of several partitions, while some are there none
   * is waited for: the scopes are not known yet, and those that are away are asked before COMMIT, if the scopes lie there.
   */
  async beforeBegin(): Promise<void> {
    const { partitions, bumpDeadlineMs } = this.#bumps;
    const unknown = partitions.list.filter(({ store }) => store.incarnation === undefined);
    if (unknown.length === 0) return;
    if (unknown.length < partitions.list.length) {
      this.#away = new Set(unknown);
      return;
    }
    const asked = unknown.map(({ store }) =>
      withDeadline('quarantine', bumpDeadlineMs, (deadline) => store.timeMs(deadline)),
    );
    const answers = await Promise.allSettled(asked);
    this.#away = new Set(unknown.filter((_, i) => answers[i]!.status === 'rejected'));
  }

  /** Deferred triggers, the last that can add events, run now; from then on the session must not fall silent. */
  get preparation(): string {
    return `set constraints all immediate;
       set local idle_in_transaction_session_timeout = ${this.#silenceMaxMs};
       set local statement_timeout = ${this.#silenceMaxMs};
       `;
  }

  get lookups(): readonly OutboxEvent[] {
    return this.#lookups;
  }

  /**
   * Sets the quarantine on every scope of the transaction's events. One query, and one command for each 1,000 scopes.
   * Throws QuarantineError.
   */
  async beforeCommit(trx: Knex.Transaction, { id }: TransactionId): Promise<void> {
    const events = await eventsOf(trx, this.#cache, id, this.#outbox);
    const { paths } = await scopesOf(trx, events, this.#outbox);
    this.#lookups = events.filter(({ unresolved }) => unresolved !== null);
    try {
      // It has been waited for already: a store that is still away rejects a read at once.
      if (this.#away.size > 0) await this.#read(paths);
      await this.#quarantine.set(paths);
    } catch (error) {
      throw new QuarantineError(error as Error);
    }
  }

  /** Reads from each partition of these scopes that was away. */
  async #read(paths: readonly string[]): Promise<void> {
    const { partitions, bumpDeadlineMs } = this.#bumps;
    for (const [partition] of partitions.group(partitions.locate(paths))) {
      if (!this.#away.has(partition)) continue;
      const key = generationKey(partition.prefix, '');
      await withDeadline('quarantine', bumpDeadlineMs, (deadline) => partition.store.read([key], deadline));
    }
  }

  async aborted(): Promise<void> {
    await this.#quarantine.lift([]).catch(() => {});
  }

  /** The transaction may still commit, so the quarantine is left to lapse. */
  unknown(): void {
    this.#quarantine.stop();
  }

  /**
   * Lifts the quarantine, and bumps those of `paths` that it did not cover. One command for each 1,000 scopes. Rejects as
   * the store does, or with BumpError.
   */
  bump(paths: readonly string[]): Promise<BumpServers> {
    return this.#quarantine.lift(paths);
  }

  ended(): void {
    this.#quarantine.stop();
  }

  /** Only a lift can tell whether the quarantine stood throughout; without one the commit counts as degraded. */
  outcome(bump: 'done' | 'pending'): Pick<Committed<unknown>, 'strict'> {
    return { strict: bump === 'done' && this.#quarantine.kept ? 'kept' : 'degraded' };
  }
}
