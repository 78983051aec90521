import { withDeadline } from '../async/deadline.js';
import { inNoContext } from '../async/no-context.js';
import { demandsKey, markKey } from '../model/key.js';
import type { StorePartition } from '../ports/store.js';

interface UnkeptBoundOptions {
  readonly store: StorePartition;
  readonly cache: string;
  /** The prefix of the partition's keys. */
  readonly prefix: string;
  readonly boundMs: number;
  /** Time limit of a request, in ms. */
  readonly deadlineMs: number;
  /** Counts a request as work under way. */
  readonly track: (request: Promise<unknown>) => void;
  readonly warn: (message: string) => void;
}

/** Shortest time between two requests, in ms. */
const ASK_EVERY_MS = 5_000;
/** A relay that begins in front of a backlog keeps no bound at first; a longer bound is waited for no longer, in ms. */
const WAIT_MAX_MS = 60_000;
/** Two instants of one renewal differ by this at most, in ms. */
const ROUNDING_MS = 5;

/**
 * A bound that no relay keeps: its freshness key is missing, and every read goes to the source.
 *
 * Readers note the bound in the store, where the doctor finds it beside the bounds that are kept. The reply tells when a
 * relay last renewed the mark. A relay that has the bound renews mark and freshness key in one step, so a mark that is
 * renewed again and again, for longer than the bound, while the key stays away, belongs to a relay with other bounds, or
 * to one that is behind for longer than the bound. The owner is then warned, once until reads are fresh again.
 *
 * A hit costs nothing of this: only reads that go to the source ask, one command each 5 s for a process, and wait for no
 * reply.
 */
export class UnkeptBound {
  readonly #options: UnkeptBoundOptions;
  #askedAtMs = -Infinity;
  /** The mark's last renewal, by the store's clock, as of the last request. */
  #renewedAtMs: number | undefined;
  /** The instant since which each request has found a newer renewal, by the cache's clock. */
  #aliveSinceMs: number | undefined;
  #warned = false;

  constructor(options: UnkeptBoundOptions) {
    this.#options = options;
  }

  /** A read that began at `nowMs` found no freshness key. */
  missed(nowMs: number): void {
    if (nowMs - this.#askedAtMs < ASK_EVERY_MS) return;
    const earlierMs = this.#askedAtMs;
    this.#askedAtMs = nowMs;
    const { store, prefix, boundMs, deadlineMs, track } = this.#options;
    if (store.demand === undefined) return;
    const demand = { demandsKey: demandsKey(prefix), markKey: markKey(prefix), boundMs };
    const request = inNoContext(() =>
      withDeadline('demand', deadlineMs, (deadline) => store.demand!(demand, deadline)).then(
        (renewedAtMs) => this.#learn(renewedAtMs, earlierMs, nowMs),
        // The reads of this cache tell the failures of its store.
        () => {},
      ),
    );
    track(request);
  }

  /** Reads are fresh again. */
  kept(): void {
    this.#renewedAtMs = undefined;
    this.#aliveSinceMs = undefined;
    this.#warned = false;
  }

  #learn(renewedAtMs: number | undefined, earlierMs: number, nowMs: number): void {
    const before = this.#renewedAtMs;
    this.#renewedAtMs = renewedAtMs;
    const isRenewed = before !== undefined && renewedAtMs !== undefined && renewedAtMs > before + ROUNDING_MS;
    if (!isRenewed) {
      this.#aliveSinceMs = undefined;
      return;
    }
    this.#aliveSinceMs ??= earlierMs;
    const { boundMs, cache, warn } = this.#options;
    if (this.#warned || nowMs - this.#aliveSinceMs <= Math.min(boundMs, WAIT_MAX_MS)) return;
    this.#warned = true;
    warn(
      `A relay is alive, but no relay keeps the bound of ${boundMs} ms (maxStalenessMs): every read goes to the source. ` +
        `Run \`gencache relay --cache ${cache} --max-staleness ${boundMs}\`, or give startRelay \`maxStalenessMs: ${boundMs}\`. ` +
        'If the relay has this bound, its events wait for longer: see its log.',
    );
  }
}
