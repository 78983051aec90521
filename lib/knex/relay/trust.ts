/**
 * Checks that the servers are who counts, vouches for what has been bumped, and repairs when one went back in time
 * (docs/protocol.md, rules 9 to 11).
 *
 *     time of the store  ->  survey of the outbox, one snapshot  ->  one script: is the mark ours? then renew
 *
 * - The row in PostgreSQL names the incarnations that count, and this epoch of theirs; the mark in the store repeats
 *   that once no bump is missing there.
 * - Row and mark as they should be: freshness keys are renewed up to that time, less the age of `Ages`, plus the bound.
 * - The row names others (a failover, a restart, a crash that lost commits): update it and commit, **then** one
 *   script bumps global and writes the mark. The other order would let an event be deleted for a bump that the
 *   other server took, after the global bump here.
 * - The row is right and the mark is not (a flush; a relay that died between the two): the script again, unless the mark
 *   is another PostgreSQL's.
 *
 * Several relays do this side by side: the row is compared and set, and a second script is one global bump too many.
 * Cut off from each other, each with a primary (split brain), both would set the row in turns: one that finds it set a moment
 * ago by somebody else waits, so that one side works while the other's readers leave the cache.
 *
 * A crash or a stop between any two steps leaves the keys to expire, and readers to leave the cache.
 */
import { withDeadline } from '../../async/deadline.js';
import { nonce } from '../../model/generation.js';
import { type FreshnessKey, freshnessKey, generationKey, keyPrefix, type MarkKey, markKey } from '../../model/key.js';
import { type Renewal, StoreUnavailableError } from '../../ports/store.js';
import { generationTtl } from '../../model/ttl.js';
import { claimAuthority, type Incarnations, type Epoch } from '../outbox/authority.js';
import type { OutboxReader } from '../outbox/outbox-reader.js';
import type { OutboxSurvey } from '../outbox/survey.js';
import type { RelayContext } from './relay-batch.js';
import { EventAges } from './event-ages.js';

/** What a check came to. */
export interface TrustCheck {
  readonly survey: OutboxSurvey;
  /** Whether bumps count: without that, no event may be deleted. */
  readonly trusted: boolean;
  /** What was repaired, if anything. */
  readonly repaired?: RepairCause;
}

/** Why everything was bumped. */
export type RepairCause =
  /** No relay had ever counted an incarnation, or the outbox is new. */
  | 'first'
  /** Another incarnation of the store: a failover, a restart. */
  | 'store'
  /** Another incarnation of PostgreSQL: a restart, a crash, a promotion, a restore. */
  | 'source'
  /** The store has lost the mark: a flush, an eviction; or a repair was not finished. */
  | 'mark';

/** How long another relay's claim that its server is the one stands before it is contested, in ms. */
const CONTEST_AFTER_MS = 5_000;

export interface TrustOptions extends RelayContext {
  readonly reader: OutboxReader;
  /** The bounds to guarantee, in ms. */
  readonly bounds: readonly number[];
}

export class Trust {
  readonly #options: TrustOptions;
  readonly #ages = new EventAges();
  readonly #markKey: MarkKey;
  readonly #keys: readonly { readonly key: FreshnessKey; readonly boundMs: number }[];
  /** Those of the last check. */
  #incarnations: Incarnations | undefined;
  /** A mark of another PostgreSQL's relay, and when this one saw it first. */
  #otherMark: { readonly mark: string; readonly seenAtMs: number } | undefined;
  /** Another relay's claim of authority, and when this relay saw it first. */
  #otherClaim: { readonly redis: string; readonly seenAtMs: number } | undefined;

  constructor(options: TrustOptions) {
    const prefix = keyPrefix(options.cache);
    this.#options = options;
    this.#markKey = markKey(prefix);
    this.#keys = options.bounds.map((boundMs) => ({ key: freshnessKey(prefix, boundMs), boundMs }));
  }

  /** Two commands and a query; more for a repair. Rejects as the store and the source do. */
  async check(): Promise<TrustCheck> {
    const ownMs = performance.now();
    const timeMs = await this.#run('time', (deadline) => this.#options.store.timeMs(deadline));
    const redis = this.#options.store.incarnation;
    if (redis === undefined) throw unknownIncarnation();
    const surveyed = await this.#options.reader.survey(this.#ages.earlierSnapshots);
    const { postgres } = surveyed;
    const known = this.#incarnations;
    this.#incarnations = { redis, postgres };
    if (known !== undefined && (known.redis !== redis || known.postgres !== postgres)) this.#ages.reset();
    const ageMs = this.#ages.check({ timeMs, ownMs }, surveyed);

    const { authority } = surveyed;
    if (authority?.redis !== redis || authority.postgres !== postgres) {
      return this.#takeAuthority({ redis, postgres }, surveyed);
    }
    const found = await this.#run('renew', (deadline) =>
      this.#options.store.renew(this.#renewal(authority, timeMs, ageMs), deadline),
    );
    if (found === 'renewed') return { survey: surveyed, trusted: true };
    if (found === 'unmarked') {
      if (await this.#isAnothers(authority)) return { survey: surveyed, trusted: false };
      await this.#repair(authority);
      return { survey: surveyed, trusted: true, repaired: 'mark' };
    }
    this.#options.store.revalidate?.();
    return { survey: surveyed, trusted: false };
  }

  async #takeAuthority(found: Incarnations, surveyed: OutboxSurvey): Promise<TrustCheck> {
    const { authority } = surveyed;
    const otherStore = authority !== undefined && authority.redis !== found.redis;
    if (otherStore && this.#isRecent(authority)) {
      this.#options.store.revalidate?.();
      return { survey: surveyed, trusted: false };
    }
    const { db, cache, outbox } = this.#options;
    await this.#assertNotSucceeded(found.postgres);
    const epoch = await claimAuthority(db, found, { cache, seen: authority, outbox });
    if (epoch === undefined) return { survey: surveyed, trusted: false };
    await this.#repair(epoch);
    const repaired = authority === undefined ? 'first' : otherStore ? 'store' : 'source';
    return { survey: surveyed, trusted: true, repaired };
  }

  /** By either clock: PostgreSQL's may jump, and this relay may have just begun. */
  #isRecent({ redis, sinceMs }: NonNullable<OutboxSurvey['authority']>): boolean {
    const nowMs = performance.now();
    if (this.#otherClaim?.redis !== redis) this.#otherClaim = { redis, seenAtMs: nowMs };
    return sinceMs < CONTEST_AFTER_MS && nowMs - this.#otherClaim.seenAtMs < CONTEST_AFTER_MS;
  }

  /**
   * Whether the mark is that of a relay on another PostgreSQL, with the same store, of which neither succeeded the other:
   * each is marked in turns.
   */
  async #isAnothers({ postgres, redis }: Epoch): Promise<boolean> {
    const mark = await this.#assertNotSucceeded(postgres);
    const [markedRedis, marked] = mark?.split(' ') ?? [];
    if (mark === null || marked === undefined || markedRedis !== redis || marked === postgres) return false;
    const nowMs = performance.now();
    if (this.#otherMark?.mark !== mark) this.#otherMark = { mark, seenAtMs: nowMs };
    return nowMs - this.#otherMark.seenAtMs < CONTEST_AFTER_MS;
  }

  /**
   * A primary that was succeeded, and lives on unfenced, has an outbox to which nobody writes: its relay must not vouch.
   * Its successor has a higher timeline, and the mark tells. Returns the mark. Throws if this is such a one. One command.
   */
  async #assertNotSucceeded(postgres: string): Promise<string | null> {
    const mark = await this.#run('mark', (deadline) => this.#options.store.readMark(this.#markKey, deadline));
    const [system, timeline] = postgres.split('/');
    const [otherSystem, otherTimeline] = mark?.split(' ')[1]?.split('/') ?? [];
    if (system === otherSystem && timeline! < otherTimeline!) {
      throw new Error(
        `A relay vouches for the PostgreSQL that is written to. This one, of timeline ${timeline}, was succeeded by one of ` +
          `timeline ${otherTimeline}, which is served by another relay. Connect this relay there, and stop the old primary.`,
      );
    }
    return mark;
  }

  async #repair(epoch: Epoch): Promise<void> {
    const repair = {
      globalKey: generationKey(keyPrefix(this.#options.cache), ''),
      markKey: this.#markKey,
      mark: markOf(epoch),
      incarnation: epoch.redis,
      attempt: nonce(),
      ttlMs: generationTtl(0),
    };
    await this.#run('repair', (deadline) => this.#options.store.repair(repair, deadline));
  }

  /** A key that may not vouch any more is left out: set back after `timeMs`, the store's clock would let it stand. */
  #renewal(authority: Epoch, timeMs: number, ageMs = Infinity): Renewal {
    return {
      markKey: this.#markKey,
      mark: markOf(authority),
      incarnation: authority.redis,
      keys: this.#keys
        .filter(({ boundMs }) => ageMs < boundMs)
        .map(({ key, boundMs }) => ({ key, untilMs: Math.floor(timeMs + boundMs - ageMs) })),
      asOfMs: Math.floor(timeMs),
      nonce: nonce(),
    };
  }

  #run<T>(operation: string, work: Parameters<typeof withDeadline<T>>[2]): Promise<T> {
    return withDeadline(operation, this.#options.bumpDeadlineMs, work);
  }
}

function markOf({ redis, postgres, epoch }: Epoch): string {
  return `${redis} ${postgres} ${epoch}`;
}

function unknownIncarnation(): StoreUnavailableError {
  return new StoreUnavailableError(
    'A relay must know which server takes its bumps, by INFO (run_id, master_replid). This one does not tell, or its ' +
      'connection has just been lost. Let the user run INFO, also inside scripts.',
    false,
  );
}
