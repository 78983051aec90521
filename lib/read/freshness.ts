import { type FreshnessKey, freshnessKey } from '../model/key.js';
import type { Store } from '../ports/store.js';

interface FreshnessOptions {
  readonly store: Store;
  readonly prefix: string;
  readonly boundMs: number;
  readonly changed: (isFresh: boolean) => void;
}

/**
 * Whether what a lookup reads is no older than the bound (`maxStalenessMs`).
 *
 * While every change older than the bound has been bumped, a relay keeps a key in the store, `f:<bound>`, of the form
 * `<incarnation> <nonce>`, which expires when that may no longer be so. A lookup asks for it in the same atomic command
 * as for its generations, so a hit costs no command more; the check is one comparison of bytes with what was seen last.
 *
 * **Invariant.** The store is used only if that command showed a value which names the store's incarnation and which
 * this process has not seen for longer than the bound. So whatever relays do or fail to do, a reader leaves the cache
 * within the bound: a relay that is gone renews nothing; a store that went back in time, or another one in its place,
 * has an incarnation that no value in it names until it is repaired; and a store whose clock stands still or went back,
 * where a key outlives its instant, is not trusted for longer than this process's own clock allows.
 */
export class Freshness {
  readonly key: FreshnessKey;
  readonly #boundMs: number;
  readonly #store: Store;
  /** The value seen last, and when a read that showed it began first. */
  #seen: Buffer | undefined;
  #sinceMs = 0;
  /** What the value names, if it has the form. */
  #incarnation: string | undefined;

  /** The state that `changed` was told last; undefined before the first. */
  #told: boolean | undefined;
  readonly #changed: (isFresh: boolean) => void;

  /** `changed`: called when the first read is not fresh, and at each change from then on. */
  constructor({ store, prefix, boundMs, changed }: FreshnessOptions) {
    this.#changed = changed;
    this.#store = store;
    this.#boundMs = boundMs;
    this.key = freshnessKey(prefix, boundMs);
  }

  /** Whether a read that began at `sentAtMs` and found `reply` at `key` is fresh. */
  check(reply: Buffer | null, sentAtMs: number): boolean {
    const fresh = reply !== null && this.#isFresh(reply, sentAtMs);
    // No relay renews the key, or the store is another server by now: a replica, or a primary with another past.
    if (!fresh) this.#store.revalidate?.();
    if (fresh !== (this.#told ?? true)) this.#changed((this.#told = fresh));
    return fresh;
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
