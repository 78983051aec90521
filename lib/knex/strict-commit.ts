import type { Knex } from 'knex';
import { withDeadline } from '../async/deadline.js';
import { GencacheError } from '../errors/errors.js';
import { nonce } from '../model/generation.js';
import type { BumpTarget, Committed } from '../ports/source.js';
import { StoreUnavailableError } from '../ports/store.js';
import { generationTtl } from '../model/ttl.js';
import { bumpPaths, chunksOfKeys, commonIncarnation } from '../write/bump-paths.js';
import type { CommitStrategy } from './commit-strategy.js';
import type { OutboxEvent } from './outbox/event.js';
import type { OutboxOptions } from './outbox/location.js';
import { topmost } from './outbox/resolve-events.js';
import { scopesOf } from './outbox/settle.js';
import { eventsOf } from './outbox/transaction-events.js';
import type { TransactionId } from './outbox/transaction-id.js';

/** The quarantine that a strict commit needs before it could not be set. Nothing was committed. */
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
 * A commit under quarantine (ladder step 4b; docs/protocol.md, rule 12): a token of this writer stands in the generation
 * of every scope that the transaction changes.
 *
 *     none -> standing (renewed until COMMIT has returned) -> lifted
 *                  \-> left to lapse, when the outcome of COMMIT is unknown
 *
 * **Invariant.** From before COMMIT is sent until the lift, no reader finds a generation there; after the lift, readers
 * find fresh generations only. Eviction, a flush, or a store that is out of reach while COMMIT runs breaks this. The lift
 * or a renewal notices, and the outcome is `degraded`: the commit was a plain one.
 */
export class StrictCommit implements CommitStrategy {
  readonly #bumps: BumpTarget;
  readonly #outbox: OutboxOptions;
  readonly #quarantineMs: number;
  readonly #renewEveryMs: number;
  /** PostgreSQL ends a session that is silent for this long between its last statement and COMMIT. */
  readonly #silenceMaxMs: number;
  readonly #token = nonce();
  #paths: readonly string[] = [];
  #lookups: readonly OutboxEvent[] = [];
  #sinceMs = 0;
  #renewal: NodeJS.Timeout | undefined;
  #kept = true;

  constructor({ bumps, outbox, quarantineMs }: StrictCommitOptions) {
    this.#bumps = bumps;
    this.#outbox = outbox;
    this.#quarantineMs = quarantineMs;
    this.#renewEveryMs = quarantineMs / 4;
    this.#silenceMaxMs = Math.floor(quarantineMs / 2);
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
    const events = await eventsOf(trx, this.#bumps.cache, id, this.#outbox);
    ({ paths: this.#paths } = await scopesOf(trx, events, this.#outbox));
    this.#lookups = events.filter(({ unresolved }) => unresolved !== null);
    if (this.#paths.length === 0) return;
    this.#sinceMs = performance.now();
    try {
      await this.#setQuarantine(() => {});
    } catch (error) {
      throw new QuarantineError(error as Error);
    }
    // This process was suspended in between: the first of its tokens may have lapsed.
    if (performance.now() - this.#sinceMs > this.#silenceMaxMs) {
      throw new QuarantineError(new Error(`The store took longer than ${this.#silenceMaxMs} ms.`));
    }
    this.#renewLater();
  }

  async aborted(): Promise<void> {
    await this.bump([]).catch(() => {});
  }

  /** The transaction may still commit, so the quarantine is left to lapse. */
  unknown(): void {
    this.ended();
  }

  /**
   * Lifts the quarantine, which gives every scope under it a fresh generation, and bumps those of `paths` that it did not
   * cover. One command for each 1,000 scopes. Rejects as the store does.
   */
  async bump(paths: readonly string[]): Promise<string | undefined> {
    this.ended();
    const { store, cache, bumpDeadlineMs } = this.#bumps;
    const quarantined = new Set(this.#paths);
    const servers = new Set<string | undefined>();
    for (const keys of chunksOfKeys(cache, this.#paths)) {
      const replies = await withDeadline('lift', bumpDeadlineMs, (deadline) =>
        store.lift(keys, this.#token, nonce(), generationTtl(0), deadline),
      );
      servers.add(store.incarnation);
      if (replies.includes('lapsed')) this.#kept = false;
    }
    const covered = new Set(topmost(new Set([...quarantined, ...paths])));
    const beyond = paths.filter((path) => !quarantined.has(path) && covered.has(path));
    if (beyond.length > 0) {
      // Another transaction linked more to the changed rows, and committed in between.
      this.#kept = false;
      servers.add(await bumpPaths(store, cache, beyond, bumpDeadlineMs));
    }
    return commonIncarnation(servers);
  }

  /** Stops the renewals. */
  ended(): void {
    clearTimeout(this.#renewal);
    this.#renewal = undefined;
  }

  /** Only a lift can tell whether the quarantine stood throughout; without one the commit counts as degraded. */
  outcome(bump: 'done' | 'pending'): Pick<Committed<unknown>, 'strict'> {
    return { strict: bump === 'done' && this.#kept ? 'kept' : 'degraded' };
  }

  /** `replied`: called after each command, with whether the token stood in all of its scopes before. */
  async #setQuarantine(replied: (stoodBefore: boolean) => void): Promise<void> {
    const { store, cache, bumpDeadlineMs } = this.#bumps;
    const limitMs = Math.min(bumpDeadlineMs, this.#silenceMaxMs);
    for (const keys of chunksOfKeys(cache, this.#paths)) {
      const stood = await withDeadline('quarantine', limitMs, (deadline) =>
        store.quarantine(keys, this.#token, this.#quarantineMs, deadline),
      );
      replied(stood === keys.length);
    }
  }

  #renewLater(): void {
    const timer = setTimeout(() => {
      const renewing = this.#setQuarantine((stoodBefore) => {
        // A token was evicted or had lapsed: readers may have filled in between.
        if (!stoodBefore) this.#kept = false;
      });
      const next = () => this.#renewal === timer && this.#renewLater();
      renewing.then(
        next,
        // The quarantine lasts for several renewals, and the lift tells whether it did, so a failure is tried again. But
        // a command that was carried out without a reply may have put back a token that was evicted, after fills: the
        // lift could not see that.
        (error: unknown) => {
          if (!(error instanceof StoreUnavailableError && !error.sent)) this.#kept = false;
          next();
        },
      );
    }, this.#renewEveryMs);
    this.#renewal = timer;
  }
}
