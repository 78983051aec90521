import type { Moment } from '../async/moment.js';
import { type FreshnessKey, freshnessKey } from '../model/key.js';
import type { KnownFresh } from '../model/sighting.js';
import type { FreshnessReading, StorePartition } from '../ports/store.js';
import type { UnkeptBound } from './unkept-bound.js';

interface FreshnessOptions {
  readonly store: StorePartition;
  readonly prefix: string;
  readonly boundMs: number;
  readonly changed: (isFresh: boolean) => void;
  readonly unkept: UnkeptBound;
}

/**
 * Checks that the store is fresh: no older than the bound (`maxStalenessMs`; docs/protocol.md, rules 9 and 10).
 *
 * While every change older than the bound has been bumped, a relay keeps a key in the store, `f:<bound>`, of the form
 * `<incarnation> <nonce>`, which expires before a change can be older than the bound. A lookup reads it in the same
 * atomic command as its generations, so a hit costs no further command; the check compares the bytes with the value
 * that was seen last.
 *
 * **Invariant.** A lookup uses the store only if that command showed a value that names the store's incarnation, and
 * that this process has not seen for longer than the bound. So a reader leaves the cache within the bound, independent
 * of any relay. A dead relay renews no key. After a failover or a restart no value in the store names its new
 * incarnation until a repair. A store whose clock stops or goes back, where a key outlives its instant, is used only as
 * long as this process's own clock allows.
 */
export class Freshness {
  readonly key: FreshnessKey;
  readonly #boundMs: number;
  readonly #store: StorePartition;
  /** The value seen last, and the start of the first read that showed it. */
  #seen: Buffer | undefined;
  #sinceMs = 0;
  /** The incarnation in the value; undefined for a malformed value. */
  #incarnation: string | undefined;

  /** For how long the store is fresh, by the last command that told; undefined before the first. */
  known: KnownFresh | undefined;
  /** The last argument of `changed`; undefined before the first call. */
  #told: boolean | undefined;
  readonly #changed: (isFresh: boolean) => void;
  readonly #unkept: UnkeptBound;

  /** `changed` is called when the first read is not fresh, and at each change from then on. */
  constructor({ store, prefix, boundMs, changed, unkept }: FreshnessOptions) {
    this.#unkept = unkept;
    this.#changed = changed;
    this.#store = store;
    this.#boundMs = boundMs;
    this.key = freshnessKey(prefix, boundMs);
  }

  /** Returns whether a read that began at `sentAtMs` and found `reply` at `key` is fresh. */
  check(reply: Buffer | null, sentAtMs: number): boolean {
    const fresh = reply !== null && this.#isFresh(reply, sentAtMs);
    // Either no relay renews the key, or the store became another server: a replica, or a primary with another past.
    if (!fresh) this.#store.revalidate?.();
    if (fresh !== (this.#told ?? true)) {
      this.#changed((this.#told = fresh));
      if (fresh) this.#unkept.kept();
    }
    if (reply === null) this.#unkept.missed(sentAtMs);
    return fresh;
  }

  /**
   * Returns how long after its sending the store is known to be fresh, in ms, by a command that read the key with its TTL
   * (docs/protocol.md, rule 26). `sentAtMs` and `since`: when it was sent, by the cache's clock and by the process' own.
   */
  freshForMs({ value, ttlMs }: FreshnessReading, sentAtMs: number, since: Moment): number {
    const isFresh = this.check(value, sentAtMs);
    const forMs = isFresh ? Math.max(0, Math.min(ttlMs, this.#sinceMs + this.#boundMs - sentAtMs)) : 0;
    this.known = { since, forMs };
    return forMs;
  }

  #isFresh(reply: Buffer, sentAtMs: number): boolean {
    if (this.#seen === undefined || !reply.equals(this.#seen)) {
      this.#seen = reply;
      this.#sinceMs = sentAtMs;
      this.#incarnation = VALUE.exec(reply.toString('latin1'))?.[1];
    }
    const { incarnation } = this.#store;
    return incarnation !== undefined && incarnation === this.#incarnation && sentAtMs - this.#sinceMs <= this.#boundMs;
  }
}

const VALUE = /^([^ ]+) [A-Za-z0-9_-]{16}$/;
