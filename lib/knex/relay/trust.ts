/**
 * Checks that both servers are authoritative, guarantees the bounds for what has been bumped, and repairs after a server
 * went back in time (docs/protocol.md, rules 9 to 11).
 *
 *     time of the store  ->  survey of the outbox, one snapshot  ->  one script: checks the mark, renews
 *
 * - The row in PostgreSQL names the authoritative incarnations and their epoch. The mark in the store repeats it once no
 *   bump is missing there.
 * - Row and mark name these servers: the freshness keys are renewed until `timeMs + boundMs - ageMs`: the store's time,
 *   the bound, the age of `EventAges`.
 * - The row names other servers (a failover, a restart, a crash that lost commits): the relay updates the row and commits,
 *   **then** one script bumps global and writes the mark. In the other order an event could be deleted for a bump that
 *   the other server took, after the global bump here.
 * - The row is right and the mark is not (a flush; a relay that died between the two steps): the script runs again, unless
 *   the mark names another PostgreSQL.
 * - Row and mark name these servers, and no check of this relay has succeeded for longer than `backlogMaxMs`: if events
 *   wait for longer than that, and no repair covers them, the relay begins a new epoch of the same servers, row first, and
 *   repairs before it relays (docs/protocol.md, rule 23a).
 *
 * Several relays do this side by side: the row is updated by compare-and-set, and a script that runs twice costs one
 * more global bump. In a split brain, with a primary on each side, relays of both sides would set the row in turns: a
 * relay that finds the row set by another one a moment ago waits, so that one side works while the readers of the other
 * leave the cache.
 *
 * After a crash or a stop between any two steps the freshness keys expire, and readers leave the cache.
 */
import { monotonicMs } from '../../async/scheduling.js';
import { withDeadline } from '../../async/deadline.js';
import { nonce } from '../../model/generation.js';
import {
  type FreshnessKey,
  freshnessKey,
  type GenerationKey,
  generationKey,
  type MarkKey,
  markKey,
} from '../../model/key.js';
import { type Renewal, type StorePartition, StoreUnavailableError } from '../../ports/store.js';
import { generationTtl } from '../../model/ttl.js';
import { claimAuthority, type Incarnations, type Epoch } from '../outbox/authority.js';
import { hasBacklog } from '../outbox/backlog.js';
import type { OutboxReader } from '../outbox/outbox-reader.js';
import { completed, hasLineage, type Incarnation, isSameLife, succession } from '../outbox/incarnation.js';
import type { Authority, OutboxSurvey } from '../outbox/survey.js';
import type { RelayContext } from './relay-batch.js';
import { EventAges, type Instant } from './event-ages.js';

/** The result of a check. */
export interface TrustCheck {
  readonly survey: OutboxSurvey;
  /** Whether both servers are authoritative: otherwise no event may be deleted. */
  readonly trusted: boolean;
  /** The cause of the repair, if there was one. */
  readonly repaired?: RepairCause;
  /** Whether another relay has made another Redis authoritative, and this relay still finds the server that it had. */
  readonly isContested?: boolean;
  /** Set if the lineage of PostgreSQL is unknown: the incarnation, and why. */
  readonly unknownLineage?: Incarnation | undefined;
}

/** The cause of a repair, which bumps everything. */
export type RepairCause =
  /** The cache had no authority yet: it is new, or the outbox is. */
  | 'first'
  /** Another incarnation of the store: a failover, a restart. */
  | 'store'
  /** Another incarnation of PostgreSQL: a restart, a crash, a promotion, a restore. */
  | 'source'
  /** The store has lost the mark (a flush, an eviction), or a repair was not finished. */
  | 'mark'
  /** The relay was away, and events wait for longer than `backlogMaxMs`. */
  | 'backlog';

/** How long another relay's claim of authority stands before this one contests it, in ms. */
const CONTEST_AFTER_MS = 5_000;

/** After a failover relays find the new server one after another; beyond this time another server is another address, in ms. */
const CONTESTED_AFTER_MS = 2_000;

export interface TrustOptions extends Omit<RelayContext, 'onForeign'> {
  readonly reader: OutboxReader;
  /** The bounds to guarantee, in ms. */
  readonly bounds: readonly number[];
  /** The time without a successful check, and the age of an event, that make a backlog, in ms; 0 for never. */
  readonly backlogMaxMs: number;
  /** The time between two checks of a relay at work, in ms. */
  readonly checkEveryMs: number;
  /** Whether a primary that was succeeded is known to take no more queries, so that bounds need no lineage. */
  readonly fenced: boolean;
}

export class Trust {
  readonly #options: TrustOptions;
  readonly #store: StorePartition;
  readonly #ages = new EventAges();
  readonly #globalKey: GenerationKey;
  readonly #markKey: MarkKey;
  readonly #keys: readonly { readonly key: FreshnessKey; readonly boundMs: number }[];
  /** The incarnations at the last check. */
  #incarnations: Incarnations | undefined;
  /** A mark of a relay on another PostgreSQL, and the instant at which this relay saw it first. */
  #otherMark: { readonly mark: string; readonly seenAtMs: number } | undefined;
  /** The last epoch that this relay began itself. */
  #ownEpoch: string | undefined;
  /** Another relay's claim of authority, and the instant at which this relay saw it first. */
  #otherClaim: { readonly epoch: string; readonly seenAtMs: number } | undefined;
  /** The beginning of the last check that left the relay trusted. */
  #trustedAt: Instant | undefined;

  constructor(options: TrustOptions) {
    const { prefix, store } = options.partitions.first;
    this.#options = options;
    this.#store = store;
    this.#globalKey = generationKey(prefix, '');
    this.#markKey = markKey(prefix);
    this.#keys = options.bounds.map((boundMs) => ({ key: freshnessKey(prefix, boundMs), boundMs }));
  }

  /** Two commands and a query; more for a repair. Rejects as the store and the source do. */
  async check(): Promise<TrustCheck> {
    const ownMs = monotonicMs();
    const timeMs = await this.#run('time', (deadline) => this.#store.timeMs(deadline));
    const check = await this.#check({ timeMs, ownMs });
    if (check.trusted) this.#trustedAt = { timeMs, ownMs };
    return check;
  }

  async #check(now: Instant): Promise<TrustCheck> {
    const redis = this.#store.incarnation;
    if (redis === undefined) throw unknownIncarnation();
    const surveyed = await this.#options.reader.survey(this.#ages.earlierSnapshots);
    // Another relay's role may see more of the same server: it wrote that into the row.
    const postgres = completed(surveyed.postgres, surveyed.authority?.postgres);
    const check = await this.#checkAs({ redis, postgres }, surveyed, now);
    return hasLineage(postgres) ? check : { ...check, unknownLineage: surveyed };
  }

  async #checkAs({ redis, postgres }: Incarnations, surveyed: OutboxSurvey, now: Instant): Promise<TrustCheck> {
    const known = this.#incarnations;
    this.#incarnations = { redis, postgres };
    if (known !== undefined && (known.redis !== redis || known.postgres !== postgres)) this.#ages.reset();
    const ageMs = this.#ages.check(now, surveyed);

    const { authority } = surveyed;
    if (authority?.redis !== redis || authority.postgres !== postgres) {
      return this.#takeAuthority({ redis, postgres }, surveyed);
    }
    const found = await this.#run('renew', (deadline) =>
      this.#store.renew(this.#renewal(authority, now.timeMs, ageMs), deadline),
    );
    if (found === 'renewed') {
      return this.#wasAway(now) ? this.#repairBacklog(authority, surveyed) : { survey: surveyed, trusted: true };
    }
    if (found === 'unmarked') {
      if (await this.#isAnothers(authority)) return { survey: surveyed, trusted: false };
      await this.#repair(authority);
      return { survey: surveyed, trusted: true, repaired: 'mark' };
    }
    this.#store.revalidate?.();
    return { survey: surveyed, trusted: false };
  }

  /**
   * Whether this relay has just begun, or no check left it trusted for longer than `backlogMaxMs` and its own pause. The
   * time is the longer of two, as in `EventAges`: this process's clock stands still while the machine sleeps.
   */
  #wasAway({ timeMs, ownMs }: Instant): boolean {
    const { backlogMaxMs, checkEveryMs } = this.#options;
    if (backlogMaxMs === 0) return false;
    const last = this.#trustedAt;
    return last === undefined || Math.max(timeMs - last.timeMs, ownMs - last.ownMs) > backlogMaxMs + checkEveryMs;
  }

  /**
   * Repairs before the first event is relayed, if events wait for longer than `backlogMaxMs` that no repair covers. Of
   * several relays that return together one begins the epoch; the others find it at their next check. At most a query, a
   * statement and a command.
   */
  async #repairBacklog(authority: Authority, surveyed: OutboxSurvey): Promise<TrustCheck> {
    const { db, cache, outbox, backlogMaxMs } = this.#options;
    // No event is older than the lag, and an event that counts is younger than the epoch.
    const mayBeBacklog = Math.min(surveyed.lagMs ?? 0, authority.sinceMs) > backlogMaxMs;
    if (!mayBeBacklog || !(await hasBacklog(db, { cache, olderThanMs: backlogMaxMs, outbox }))) {
      return { survey: surveyed, trusted: true };
    }
    const epoch = await claimAuthority(db, authority, { cache, seen: authority, outbox });
    if (epoch === undefined) return { survey: surveyed, trusted: false };
    this.#ownEpoch = epoch.epoch;
    await this.#repair(epoch);
    return { survey: surveyed, trusted: true, repaired: 'backlog' };
  }

  async #takeAuthority(found: Incarnations, surveyed: OutboxSurvey): Promise<TrustCheck> {
    const { authority } = surveyed;
    const otherStore = authority !== undefined && authority.redis !== found.redis;
    const otherClaimMs = otherStore ? this.#otherClaimMs(authority) : undefined;
    if (otherClaimMs !== undefined && otherClaimMs < CONTEST_AFTER_MS) {
      this.#store.revalidate?.();
      return { survey: surveyed, trusted: false, isContested: this.#isContested() };
    }
    const { db, cache, outbox } = this.#options;
    await this.#assertNotSucceeded(found.postgres);
    const epoch = await claimAuthority(db, found, { cache, seen: authority, outbox });
    if (epoch === undefined) return { survey: surveyed, trusted: false };
    this.#ownEpoch = epoch.epoch;
    await this.#repair(epoch);
    const repaired = authority === undefined ? 'first' : otherStore ? 'store' : 'source';
    return { survey: surveyed, trusted: true, repaired };
  }

  /**
   * The time since another relay's claim, in ms; undefined for an own claim. It is the longer of two, since PostgreSQL's
   * clock may jump, and this relay may have just begun: since the claim, and since this relay saw it first.
   */
  #otherClaimMs({ epoch, sinceMs }: NonNullable<OutboxSurvey['authority']>): number | undefined {
    // The server of this relay's own claim has restarted or was replaced: no other relay bumps there.
    if (epoch === this.#ownEpoch) return undefined;
    const nowMs = monotonicMs();
    if (this.#otherClaim?.epoch !== epoch) this.#otherClaim = { epoch, seenAtMs: nowMs };
    return Math.max(sinceMs, nowMs - this.#otherClaim.seenAtMs);
  }

  #isContested(): boolean {
    return this.#otherClaim !== undefined && monotonicMs() - this.#otherClaim.seenAtMs >= CONTESTED_AFTER_MS;
  }

  /**
   * Whether the mark belongs to a relay on another PostgreSQL with the same store, and neither PostgreSQL succeeded the
   * other: relays of both then write the mark in turns.
   */
  async #isAnothers({ postgres, redis }: Epoch): Promise<boolean> {
    const mark = await this.#assertNotSucceeded(postgres);
    const [markedRedis, marked] = mark?.split(' ') ?? [];
    if (mark === null || marked === undefined || markedRedis !== redis || isSameLife(marked, postgres)) {
      return false;
    }
    const nowMs = monotonicMs();
    if (this.#otherMark?.mark !== mark) this.#otherMark = { mark, seenAtMs: nowMs };
    return nowMs - this.#otherMark.seenAtMs < CONTEST_AFTER_MS;
  }

  /**
   * A primary that was succeeded, and runs on unfenced, has an outbox without writers: its relay must guarantee no bound. The
   * mark tells, since the successor has a higher timeline. Returns the mark. Throws on a succeeded primary, unless the
   * lineage of either is unknown. One command.
   */
  async #assertNotSucceeded(postgres: string): Promise<string | null> {
    const mark = await this.#run('mark', (deadline) => this.#store.readMark(this.#markKey, deadline));
    const marked = mark?.split(' ')[1];
    const succeeded = marked === undefined ? undefined : succession(postgres, marked);
    if (succeeded !== undefined) {
      throw new Error(
        `This PostgreSQL, of timeline ${succeeded.own}, was succeeded by one of timeline ${succeeded.later}, whose events ` +
          'another relay bumps. This relay guarantees no bound. Connect it to the successor, and stop the old primary.',
      );
    }
    return mark;
  }

  async #repair(epoch: Epoch): Promise<void> {
    const repair = {
      globalKey: this.#globalKey,
      markKey: this.#markKey,
      mark: markOf(epoch),
      incarnation: epoch.redis,
      attempt: nonce(),
      ttlMs: generationTtl(0),
    };
    await this.#run('repair', (deadline) => this.#store.repair(repair, deadline));
  }

  /**
   * A key past its bound is left out: if the store's clock was set back after `timeMs`, a renewal would keep it alive. Without
   * a lineage all keys are: the relay of a primary that was succeeded could not tell.
   */
  #renewal(authority: Epoch, timeMs: number, ageMs = Infinity): Renewal {
    const keepsBounds = this.#options.fenced || hasLineage(authority.postgres);
    return {
      markKey: this.#markKey,
      mark: markOf(authority),
      incarnation: authority.redis,
      keys: this.#keys
        .filter(({ boundMs }) => keepsBounds && ageMs < boundMs)
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
    'The incarnation of the store is unknown: INFO (run_id, master_replid) is refused, or the connection has just been ' +
      'lost. Let the user of the relay run INFO, also inside scripts.',
    false,
  );
}
