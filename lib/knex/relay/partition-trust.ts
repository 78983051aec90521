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
import { generationTtl } from '../../model/ttl.js';
import type { Partition } from '../../ports/partitions.js';
import type { Renewal, StorePartition } from '../../ports/store.js';
import type { Epoch, Incarnations } from '../outbox/authority.js';
import { hasLineage, isSameLife, succession } from '../outbox/incarnation.js';
import type { Authority, EarlierSnapshots, OutboxSurvey } from '../outbox/survey.js';
import { EventAges, type Instant } from './event-ages.js';

/** How long another relay's claim of authority stands before this one contests it, in ms. */
const CONTEST_AFTER_MS = 5_000;

/** After a failover relays find the new server one after another; beyond this time another server is another address, in ms. */
const CONTESTED_AFTER_MS = 2_000;

export interface PartitionTrustOptions {
  /** Whether the store has partitions, be it one. */
  readonly isPartitioned: boolean;
  readonly bounds: readonly number[];
  readonly bumpDeadlineMs: number;
  readonly backlogMaxMs: number;
  readonly checkEveryMs: number;
  readonly fenced: boolean;
}

/** What a relay knows of one partition, and its commands to it (`trust.ts`). Methods reject as the store does. */
export class PartitionTrust {
  readonly partition: Partition;
  readonly #options: PartitionTrustOptions;
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
  /** The beginning of the last check that left the partition trusted. */
  #trustedAt: Instant | undefined;
  #isTrusted = false;
  /** Number of its commands and steps under way. */
  #unsettled = 0;

  constructor(partition: Partition, options: PartitionTrustOptions) {
    const { prefix, store } = partition;
    this.partition = partition;
    this.#options = options;
    this.#store = store;
    this.#globalKey = generationKey(prefix, '');
    this.#markKey = markKey(prefix);
    this.#keys = options.bounds.map((boundMs) => ({ key: freshnessKey(prefix, boundMs), boundMs }));
  }

  /** The outcome of the last check. Of several partitions, one whose connection is lost is not trusted. */
  get isTrusted(): boolean {
    return this.#isTrusted && !(this.#options.isPartitioned && this.#store.incarnation === undefined);
  }

  /** Whether a command or a step is under way, behind which none is queued. */
  get isUnsettled(): boolean {
    return this.#unsettled > 0;
  }

  get earlierSnapshots(): EarlierSnapshots | undefined {
    return this.#ages.earlierSnapshots;
  }

  /** Follows a command or a step until it settles. */
  follow<T>(work: Promise<T>): Promise<T> {
    this.#unsettled++;
    const settled = () => void this.#unsettled--;
    work.then(settled, settled);
    return work;
  }

  trust(since: Instant): void {
    this.#isTrusted = true;
    this.#trustedAt = since;
  }

  distrust(): void {
    this.#isTrusted = false;
  }

  authorityIn(surveyed: OutboxSurvey): Authority | undefined {
    return this.#surveyed(surveyed)?.authority;
  }

  #surveyed(
    surveyed: OutboxSurvey,
  ): Pick<OutboxSurvey, 'authority'> & { readonly owed?: { readonly xid: bigint } | undefined } {
    return this.#options.isPartitioned
      ? (surveyed.partitions.get(this.partition.name) ?? { authority: undefined })
      : surveyed;
  }

  /** As `EventAges.check`; ages of other incarnations do not count. */
  ageMs(found: Incarnations, now: Instant, surveyed: OutboxSurvey): number | undefined {
    const known = this.#incarnations;
    this.#incarnations = found;
    if (known !== undefined && (known.redis !== found.redis || known.postgres !== found.postgres)) this.#ages.reset();
    return this.#ages.check(now, surveyed, this.#surveyed(surveyed).owed?.xid);
  }

  renew(authority: Authority, timeMs: number, ageMs: number | undefined): ReturnType<StorePartition['renew']> {
    return this.#run('renew', (deadline) => this.#store.renew(this.#renewal(authority, timeMs, ageMs), deadline));
  }

  /** The server is another one than the caller took it for. */
  revalidate(): void {
    this.#store.revalidate?.();
  }

  /**
   * Whether this relay has just begun, or no check left it trusted for longer than `backlogMaxMs` and its own pause. The
   * time is the longer of two, as in `EventAges`: this process's clock stands still while the machine sleeps.
   */
  wasAway({ timeMs, ownMs }: Instant): boolean {
    const { backlogMaxMs, checkEveryMs } = this.#options;
    if (backlogMaxMs === 0) return false;
    const last = this.#trustedAt;
    return last === undefined || Math.max(timeMs - last.timeMs, ownMs - last.ownMs) > backlogMaxMs + checkEveryMs;
  }

  /** No event is older than the lag, and an event that counts is younger than the epoch. */
  mayHaveBacklog({ sinceMs }: Authority, surveyed: OutboxSurvey): boolean {
    return Math.min(surveyed.lagMs ?? 0, sinceMs) > this.#options.backlogMaxMs;
  }

  /** Whether another relay's claim of another Redis is so young that this relay does not contest it. */
  mustYield(authority: Authority): boolean {
    const otherClaimMs = this.#otherClaimMs(authority);
    return otherClaimMs !== undefined && otherClaimMs < CONTEST_AFTER_MS;
  }

  /**
   * The time since another relay's claim, in ms; undefined for an own claim. It is the longer of two, since PostgreSQL's
   * clock may jump, and this relay may have just begun: since the claim, and since this relay saw it first.
   */
  #otherClaimMs({ epoch, sinceMs }: Authority): number | undefined {
    // The server of this relay's own claim has restarted or was replaced: no other relay bumps there.
    if (epoch === this.#ownEpoch) return undefined;
    const nowMs = monotonicMs();
    if (this.#otherClaim?.epoch !== epoch) this.#otherClaim = { epoch, seenAtMs: nowMs };
    return Math.max(sinceMs, nowMs - this.#otherClaim.seenAtMs);
  }

  get isContested(): boolean {
    return this.#otherClaim !== undefined && monotonicMs() - this.#otherClaim.seenAtMs >= CONTESTED_AFTER_MS;
  }

  /**
   * Whether the mark belongs to a relay on another PostgreSQL with the same store, and neither PostgreSQL succeeded the
   * other: relays of both then write the mark in turns.
   */
  async isAnothers({ postgres, redis }: Epoch): Promise<boolean> {
    const mark = await this.assertNotSucceeded(postgres);
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
  async assertNotSucceeded(postgres: string): Promise<string | null> {
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

  /** Bumps the whole partition and writes the mark of an epoch, which this relay began or found without its mark. */
  async repair(epoch: Epoch, { isOwn }: { readonly isOwn: boolean }): Promise<void> {
    if (isOwn) this.#ownEpoch = epoch.epoch;
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
