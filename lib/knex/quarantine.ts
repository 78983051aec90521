import type { Knex } from 'knex';
import { withDeadline } from '../deadline.js';
import { GencacheError } from '../errors.js';
import { nonce } from '../generation.js';
import type { Bumps, Committed } from '../source.js';
import { generationTtl } from '../ttl.js';
import { bumpPaths, chunksOfKeys } from './outbox/bump-paths.js';
import { eventsOf } from './outbox/event.js';
import type { OutboxOptions } from './outbox/place.js';
import { topmost } from './outbox/resolve.js';
import { scopesOf } from './outbox/settle.js';
import type { Xid } from './xid.js';

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

/** How long a quarantine lasts that nobody renews, in ms. */
const QUARANTINE_MS = 10_000;
const RENEW_EVERY_MS = QUARANTINE_MS / 4;
/** PostgreSQL ends a session that is silent for this long between its last statement and COMMIT. */
const SILENCE_MAX_MS = QUARANTINE_MS / 2;

/**
 * One strict commit's quarantine (protocol rule 12): this writer's token, in the generation of every scope it changes.
 *
 *     none -> prepared -> standing (renewed until COMMIT has returned) -> lifted
 *
 * **Invariant.** From before COMMIT is sent until the lift, no reader finds a generation there; after it, only fresh ones.
 * What breaks it (eviction, a flush, a store that can't be reached while COMMIT runs) is noticed by the lift, or by a
 * renewal, and told: that commit was a plain one.
 */
export class Quarantine {
  readonly #bumps: Bumps;
  readonly #token = nonce();
  #paths: readonly string[] = [];
  #sinceMs = 0;
  #renewing: NodeJS.Timeout | undefined;
  #kept = true;

  constructor(bumps: Bumps) {
    this.#bumps = bumps;
  }

  get outcome(): Pick<Committed<unknown>, 'strict'> {
    return { strict: this.#kept ? 'kept' : 'degraded' };
  }

  /** The last that may add events, deferred triggers, runs now; then this session must not fall silent. One query. */
  async prepare(trx: Knex.Transaction): Promise<void> {
    await trx.raw(
      `set constraints all immediate; set local idle_in_transaction_session_timeout = ${SILENCE_MAX_MS};
       set local statement_timeout = ${SILENCE_MAX_MS}`,
    );
  }

  /** Puts the token where the transaction's events point. One query, and one command for each 1,000 scopes. */
  async begin(trx: Knex.Transaction, { id }: Xid, outbox: OutboxOptions): Promise<void> {
    const events = await eventsOf(trx, this.#bumps.cache, id, outbox);
    ({ paths: this.#paths } = await scopesOf(trx, events, outbox));
    if (this.#paths.length === 0) return;
    this.#sinceMs = performance.now();
    try {
      await this.#place();
    } catch (error) {
      throw new QuarantineError(error as Error);
    }
    // This process was suspended in between: what it placed first may have lapsed.
    if (performance.now() - this.#sinceMs > SILENCE_MAX_MS) {
      throw new QuarantineError(new Error(`Placing it took longer than ${SILENCE_MAX_MS} ms.`));
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
    return servers.size === 1 ? [...servers][0] : undefined;
  }

  /** Renews no more. */
  end(): void {
    clearTimeout(this.#renewing);
    this.#renewing = undefined;
  }

  async #place(): Promise<number> {
    const { store, cache, bumpDeadlineMs } = this.#bumps;
    let held = 0;
    for (const keys of chunksOfKeys(cache, this.#paths)) {
      held += await withDeadline('quarantine', bumpDeadlineMs, (deadline) =>
        store.quarantine(keys, this.#token, QUARANTINE_MS, deadline),
      );
    }
    return held;
  }

  #renew(): void {
    const timer = setTimeout(() => {
      const renewing = this.#place();
      const next = () => this.#renewing === timer && this.#renew();
      renewing.then(
        (held) => {
          if (held < this.#paths.length) this.#kept = false;
          next();
        },
        // Try again: it lasts for several renewals. The lift tells whether it did.
        next,
      );
    }, RENEW_EVERY_MS);
    this.#renewing = timer;
  }
}
