import type { Knex } from 'knex';
import { withDeadline } from '../async/deadline.js';
import { GencacheError } from '../errors/errors.js';
import { nonce } from '../model/generation.js';
import type { BumpTarget, Committed } from '../ports/source.js';
import { StoreUnavailableError } from '../ports/store.js';
import { generationTtl } from '../model/ttl.js';
import { bumpPaths, chunksOfKeys, commonIncarnation } from '../write/bump-paths.js';
import { eventsOf, type OutboxEvent } from './outbox/event.js';
import type { OutboxOptions } from './outbox/location.js';
import { topmost } from './outbox/resolve-events.js';
import { scopesOf, type StandingQuarantine } from './outbox/settle.js';
import type { TransactionId } from './outbox/transaction-id.js';

/** A strict commit needs its quarantine before it. Nothing was committed. */
export class QuarantineError extends GencacheError {
  constructor(cause: Error) {
    super(
      'QUARANTINE',
      `A strict commit begins when readers of what changes leave the cache. The store could not be told: ${cause.message} ` +
        'The transaction was rolled back. Try again, or commit without `strict`.',
      { cause },
    );
  }
}

/**
 * One strict commit's quarantine (docs/protocol.md, rule 12): this writer's token, in the generation of every scope it changes.
 *
 *     none -> prepared -> standing (renewed until COMMIT has returned) -> lifted
 *
 * **Invariant.** From before COMMIT is sent until the lift, no reader finds a generation there; after it, only fresh ones.
 * What breaks it (eviction, a flush, a store that can't be reached while COMMIT runs) is noticed by the lift, or by a
 * renewal, and told: that commit was a plain one.
 */
export class Quarantine implements StandingQuarantine {
  readonly #bumps: BumpTarget;
  readonly #lastsMs: number;
  readonly #renewEveryMs: number;
  /** PostgreSQL ends a session that is silent for this long between its last statement and COMMIT. */
  readonly #silenceMaxMs: number;
  readonly #token = nonce();
  #paths: readonly string[] = [];
  #lookUps: readonly OutboxEvent[] = [];
  #sinceMs = 0;
  #renewing: NodeJS.Timeout | undefined;
  #kept = true;

  /** `lastsMs`: how long it lasts when nobody renews it. */
  constructor(bumps: BumpTarget, lastsMs: number) {
    this.#bumps = bumps;
    this.#lastsMs = lastsMs;
    this.#renewEveryMs = lastsMs / 4;
    this.#silenceMaxMs = Math.floor(lastsMs / 2);
  }

  get outcome(): Pick<Committed<unknown>, 'strict'> {
    return { strict: this.#kept ? 'kept' : 'degraded' };
  }

  get lookUps(): readonly OutboxEvent[] {
    return this.#lookUps;
  }

  /**
   * Statements after the last of the work: the last that may add events, deferred triggers, runs now; and from then on this
   * session must not fall silent.
   */
  get preparation(): string {
    return `set constraints all immediate;
       set local idle_in_transaction_session_timeout = ${this.#silenceMaxMs};
       set local statement_timeout = ${this.#silenceMaxMs};
       `;
  }

  /** Puts the token where the transaction's events point. One query, and one command for each 1,000 scopes. */
  async begin(trx: Knex.Transaction, { id }: TransactionId, outbox: OutboxOptions): Promise<void> {
    const events = await eventsOf(trx, this.#bumps.cache, id, outbox);
    ({ paths: this.#paths } = await scopesOf(trx, events, outbox));
    this.#lookUps = events.filter(({ unresolved }) => unresolved !== null);
    if (this.#paths.length === 0) return;
    this.#sinceMs = performance.now();
    try {
      await this.#place(() => {});
    } catch (error) {
      throw new QuarantineError(error as Error);
    }
    // This process was suspended in between: what it placed first may have lapsed.
    if (performance.now() - this.#sinceMs > this.#silenceMaxMs) {
      throw new QuarantineError(new Error(`Placing it took longer than ${this.#silenceMaxMs} ms.`));
    }
    this.#renew();
  }

  /**
   * Gives every scope that was under it a fresh generation, and bumps `changed`, looked up after the commit, as far as it
   * goes beyond. One command for each 1,000 scopes. Rejects as the store does.
   */
  async lift(changed: readonly string[]): Promise<string | undefined> {
    this.end();
    const { store, cache, bumpDeadlineMs } = this.#bumps;
    const placed = new Set(this.#paths);
    const servers = new Set<string | undefined>();
    for (const keys of chunksOfKeys(cache, this.#paths)) {
      const replies = await withDeadline('lift', bumpDeadlineMs, (deadline) =>
        store.lift(keys, this.#token, nonce(), generationTtl(0), deadline),
      );
      servers.add(store.incarnation);
      if (replies.includes('lapsed')) this.#kept = false;
    }
    const covered = new Set(topmost(new Set([...placed, ...changed])));
    const beyond = changed.filter((path) => !placed.has(path) && covered.has(path));
    if (beyond.length > 0) {
      // Another transaction linked more to what this one changed, and committed in between.
      this.#kept = false;
      servers.add(await bumpPaths(store, cache, beyond, bumpDeadlineMs));
    }
    return commonIncarnation(servers);
  }

  /** Renews no more. */
  end(): void {
    clearTimeout(this.#renewing);
    this.#renewing = undefined;
  }

  /** `found`: told, for each command, whether all it placed was there before. */
  async #place(found: (all: boolean) => void): Promise<void> {
    const { store, cache, bumpDeadlineMs } = this.#bumps;
    const limitMs = Math.min(bumpDeadlineMs, this.#silenceMaxMs);
    for (const keys of chunksOfKeys(cache, this.#paths)) {
      const held = await withDeadline('quarantine', limitMs, (deadline) =>
        store.quarantine(keys, this.#token, this.#lastsMs, deadline),
      );
      found(held === keys.length);
    }
  }

  #renew(): void {
    const timer = setTimeout(() => {
      const renewing = this.#place((all) => {
        // It was evicted, or lapsed: readers may have filled in between.
        if (!all) this.#kept = false;
      });
      const next = () => this.#renewing === timer && this.#renew();
      renewing.then(
        next,
        // Try again: it lasts for several renewals, and the lift tells whether it did. But one that was carried out, its
        // reply lost, may have put back what was evicted, and filled since: the lift would find it as it should be.
        (error: unknown) => {
          if (!(error instanceof StoreUnavailableError && !error.sent)) this.#kept = false;
          next();
        },
      );
    }, this.#renewEveryMs);
    this.#renewing = timer;
  }
}
