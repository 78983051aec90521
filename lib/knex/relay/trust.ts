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
 * A cache with several partitions has a row, a mark and freshness keys for each of them (docs/protocol.md, rules 9a and 10a).
 * One survey serves all; the store's time is read once on each primary; the partitions then go on side by side, each with
 * its own outcome. A primary that is late by more than `stragglerMs` holds up none of the others: its partitions are not
 * trusted, and are not asked again until what was sent has settled.
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
import { withoutStragglers } from '../../async/without-stragglers.js';
import type { Partition, Partitions } from '../../ports/partitions.js';
import { StoreUnavailableError } from '../../ports/store.js';
import { claimAuthority, type Epoch, type Incarnations } from '../outbox/authority.js';
import { hasBacklog, partitionsWithBacklog } from '../outbox/backlog.js';
import { completed, hasLineage, type Incarnation } from '../outbox/incarnation.js';
import type { OutboxReader } from '../outbox/outbox-reader.js';
import { type ClaimedEpoch, claimPartitions, deleteCovered } from '../outbox/partition-authority.js';
import type { Authority, OutboxSurvey } from '../outbox/survey.js';
import { type Instant, widest } from './event-ages.js';
import { PartitionTrust } from './partition-trust.js';
import type { PartitionsTrust, RelayContext } from './relay-context.js';

/** The result of a check. */
export interface TrustCheck {
  readonly survey: OutboxSurvey;
  /** The repairs since the last check. */
  readonly repairs: readonly Repair[];
  /** The partitions that failed while others did not, since the last check, by error. */
  readonly failures: readonly PartitionFailure[];
  /** Whether another relay has made another Redis authoritative, and this relay still finds the server that it had. */
  readonly isContested: boolean;
  /** Set if the lineage of PostgreSQL is unknown: the incarnation, and why. */
  readonly unknownLineage: Incarnation | undefined;
}

export interface Repair {
  readonly cause: RepairCause;
  readonly partitions: readonly Partition[];
}

export interface PartitionFailure {
  readonly error: Error;
  readonly partitions: readonly Partition[];
}

/** The cause of a repair, which bumps everything. */
export type RepairCause =
  /** The cache had no authority yet: it is new, or the outbox is. */
  | 'first'
  /** Another incarnation of the store: a failover, a restart, a slot that moved to another primary. */
  | 'store'
  /** Another incarnation of PostgreSQL: a restart, a crash, a promotion, a restore. */
  | 'source'
  /** The store has lost the mark (a flush, an eviction), or a repair was not finished. */
  | 'mark'
  /** The relay was away, and events wait for longer than `backlogMaxMs`. */
  | 'backlog';

export interface TrustOptions extends Omit<RelayContext, 'onForeign' | 'trust'> {
  readonly reader: OutboxReader;
  /** The bounds to guarantee, in ms. */
  readonly bounds: readonly number[];
  /** The time without a successful check, and the age of an event, that make a backlog, in ms; 0 for never. */
  readonly backlogMaxMs: number;
  /** The time between two checks of a relay at work, in ms. */
  readonly checkEveryMs: number;
  /** Whether a primary that was succeeded is known to take no more queries, so that bounds need no lineage. */
  readonly fenced: boolean;
  /** As in `PartitionsTrust`. */
  readonly stragglerMs: number;
}

/** One partition in one check. */
interface PartitionCheck {
  readonly of: PartitionTrust;
  readonly now: Instant;
  readonly found: Incarnations;
  readonly authority: Authority | undefined;
}

/** One partition in one check, with an epoch that names its servers. */
type AuthoritativeCheck = PartitionCheck & { readonly authority: Authority };

export class Trust implements PartitionsTrust {
  readonly #options: TrustOptions;
  #each: readonly PartitionTrust[] = [];
  #of: ReadonlyMap<Partition, PartitionTrust> = new Map();
  #repairs: Repair[] = [];
  #failures: PartitionFailure[] = [];
  #isContested = false;
  /** What partitions owed before epochs whose repairs have been made since the last check. */
  #covered: ClaimedEpoch['covered'][number][] = [];

  constructor(options: TrustOptions) {
    this.#options = options;
    this.serve(options.partitions);
  }

  /** Takes these partitions in place of the ones before. Those that are new are not trusted until a check. */
  serve({ list, isPartitioned }: Partitions): void {
    const options = { ...this.#options, isPartitioned };
    this.#each = list.map((partition) => this.#of.get(partition) ?? new PartitionTrust(partition, options));
    this.#of = new Map(this.#each.map((each) => [each.partition, each]));
  }

  get stragglerMs(): number {
    return this.#options.stragglerMs;
  }

  isTrusted(partition: Partition): boolean {
    return this.#of.get(partition)!.isTrusted;
  }

  get isAnyTrusted(): boolean {
    return this.#each.some(({ isTrusted }) => isTrusted);
  }

  get untrusted(): Partition[] {
    return this.#each.filter(({ isTrusted }) => !isTrusted).map(({ partition }) => partition);
  }

  distrust(partition: Partition, error: Error): void {
    this.#failed([this.#of.get(partition)!], error);
  }

  distrustServerOf({ store }: Partition, error: Error, unsettled: Promise<unknown>): void {
    const each = this.#each.filter(({ partition }) => partition.store.incarnation === store.incarnation);
    for (const one of each) void one.follow(unsettled);
    this.#failed(each, error);
  }

  distrustAll(): void {
    for (const each of this.#each) each.distrust();
  }

  /**
   * Two commands and a query, for several partitions a command for each primary and for each partition; more for a repair.
   * Rejects as the store and the source do, if the check leaves no partition trusted.
   */
  async check(): Promise<TrustCheck> {
    const asked = this.#each.filter(({ isUnsettled }) => !isUnsettled);
    const times = await this.#times(asked);
    const { reader } = this.#options;
    const answering = asked.filter(
      ({ isUnsettled, partition }) => !isUnsettled && times.has(partition.store.incarnation),
    );
    const present = answering.map((of) => ({ of, redis: of.partition.store.incarnation! }));
    const surveyed = await reader.survey(widest(answering.map(({ earlierSnapshots }) => earlierSnapshots)));
    const checks = present.map(({ of, redis }): PartitionCheck => {
      const authority = of.authorityIn(surveyed);
      // Another relay's role may see more of the same server: it wrote that into the row.
      const postgres = completed(surveyed.postgres, authority?.postgres);
      return { of, now: times.get(redis)!, found: { redis, postgres }, authority };
    });
    this.#isContested = false;
    await this.#judge(checks, surveyed);
    await this.#deleteCovered();
    const lineage = checks.find(({ found }) => !hasLineage(found.postgres));
    const [repairs, failures] = [this.#repairs, this.#failures];
    [this.#repairs, this.#failures] = [[], []];
    if (!this.isAnyTrusted && failures.length > 0) throw failures[0]!.error;
    return { survey: surveyed, repairs, failures, isContested: this.#isContested, unknownLineage: lineage && surveyed };
  }

  /**
   * The present instant by the clock of each primary, by its incarnation. One command for each. Rejects with the first error
   * if there is no answer.
   */
  async #times(asked: readonly PartitionTrust[]): Promise<ReadonlyMap<string | undefined, Instant>> {
    const times = new Map<string | undefined, Instant>();
    const ownMs = monotonicMs();
    const groups = groupBy(asked, ({ partition }) => partition.store.incarnation);
    const asking = groups.map(async (group) => {
      const { store } = group[0]!.partition;
      const timeMs = await withDeadline('time', this.#options.bumpDeadlineMs, (deadline) => store.timeMs(deadline));
      if (store.incarnation === undefined) {
        store.revalidate?.();
        throw unknownIncarnation();
      }
      times.set(store.incarnation, { timeMs, ownMs });
    });
    const errors = new Map<number, Error>();
    const answered = asking.map((answer, i) => {
      for (const each of groups[i]!) void each.follow(answer);
      return answer.catch((error: unknown) => {
        errors.set(i, error as Error);
        throw error;
      });
    });
    await withoutStragglers(answered, this.#options.stragglerMs);
    // Stragglers settle by themselves, and are reported now.
    for (const [i, group] of groups.entries()) {
      const error = errors.get(i);
      if (error !== undefined || group[0]!.isUnsettled) this.#failed(group, error ?? this.#late('tell its time'));
    }
    if (times.size === 0 && errors.size > 0) {
      this.#failures = [];
      throw [...errors.values()][0]!;
    }
    return times;
  }

  /** Renews, claims and repairs, each partition by itself. */
  async #judge(checks: readonly PartitionCheck[], surveyed: OutboxSurvey): Promise<void> {
    const work: Promise<unknown>[] = [];
    const claiming: PartitionCheck[] = [];
    const away: AuthoritativeCheck[] = [];
    const run = (check: PartitionCheck, step: Promise<unknown>) => {
      const followed = check.of.follow(step);
      work.push(
        followed.catch((error: unknown) => {
          this.#failed([check.of], error as Error);
          throw error;
        }),
      );
    };
    for (const check of checks) {
      const { of, now, found, authority } = check;
      const ageMs = of.ageMs(found, now, surveyed);
      if (authority?.redis !== found.redis || authority.postgres !== found.postgres) claiming.push(check);
      else {
        const ours = { ...check, authority };
        run(
          check,
          this.#renew(ours, ageMs).then((isAway) => isAway && away.push(ours)),
        );
      }
    }
    for (const [check, step] of this.#takeAuthority(claiming)) run(check, step);
    await withoutStragglers(work, this.#options.stragglerMs);
    for (const { of } of checks) if (of.isUnsettled) this.#failed([of], this.#late('be checked'));
    if (away.length === 0) return;
    work.length = 0;
    for (const [check, step] of this.#repairBacklog(away, surveyed)) run(check, step);
    await withoutStragglers(work, this.#options.stragglerMs);
  }

  /** Returns whether the partition is as it should be, and the relay was away. */
  async #renew({ of, now, authority }: AuthoritativeCheck, ageMs: number | undefined): Promise<boolean> {
    const found = await of.renew(authority, now.timeMs, ageMs);
    if (found === 'renewed') {
      if (of.wasAway(now)) return true;
      of.trust(now);
    } else if (found === 'unmarked') {
      if (await of.isAnothers(authority)) of.distrust();
      else await this.#repair({ of, now }, authority, 'mark');
    } else {
      of.revalidate();
      of.distrust();
    }
    return false;
  }

  /**
   * Repairs before the first event is relayed, if events wait for longer than `backlogMaxMs` that no repair covers. Of
   * several relays that return together one begins the epoch; the others find it at their next check. At most a query, a
   * statement and a command.
   */
  #repairBacklog(away: readonly AuthoritativeCheck[], surveyed: OutboxSurvey): Map<PartitionCheck, Promise<unknown>> {
    const perhaps = away.filter(({ of, authority }) => of.mayHaveBacklog(authority, surveyed));
    const having = perhaps.length === 0 ? Promise.resolve([]) : this.#withBacklog(perhaps);
    const epochs = having.then((found) => this.#claim(found));
    epochs.catch(() => {});
    return new Map(
      away.map((check) => [
        check,
        (async () => {
          const claimed = await epochs;
          const isBacklog = (await having).includes(check);
          if (!isBacklog) check.of.trust(check.now);
          else await this.#repairOwn(check, claimed.get(check), 'backlog');
        })(),
      ]),
    );
  }

  async #withBacklog(checks: readonly AuthoritativeCheck[]): Promise<readonly AuthoritativeCheck[]> {
    const { db, cache, outbox, partitions, backlogMaxMs } = this.#options;
    const options = { cache, olderThanMs: backlogMaxMs, outbox };
    if (!partitions.isPartitioned) return (await hasBacklog(db, options)) ? checks : [];
    const found = await partitionsWithBacklog(db, checks.map(nameOf), options);
    return checks.filter((check) => found.has(nameOf(check)));
  }

  #takeAuthority(checks: readonly PartitionCheck[]): Map<PartitionCheck, Promise<unknown>> {
    const steps = new Map<PartitionCheck, Promise<unknown>>();
    const claiming: (readonly [PartitionCheck, Promise<unknown>])[] = [];
    for (const check of checks) {
      const { of, found, authority } = check;
      if (authority !== undefined && authority.redis !== found.redis && of.mustYield(authority)) {
        of.revalidate();
        of.distrust();
        this.#isContested ||= of.isContested;
      } else claiming.push([check, of.assertNotSucceeded(found.postgres)]);
    }
    if (claiming.length === 0) return steps;
    const epochs = Promise.allSettled(claiming.map(([, asserted]) => asserted)).then((asserted) =>
      this.#claim(claiming.filter((_, i) => asserted[i]!.status === 'fulfilled').map(([check]) => check)),
    );
    epochs.catch(() => {});
    for (const [check, asserted] of claiming) {
      const { found, authority } = check;
      const cause = authority === undefined ? 'first' : authority.redis !== found.redis ? 'store' : 'source';
      steps.set(
        check,
        asserted.then(async () => this.#repairOwn(check, (await epochs).get(check), cause)),
      );
    }
    return steps;
  }

  /** Claims authority for the servers of these checks. Returns the new epochs; without those that another relay began. One statement. */
  async #claim(checks: readonly PartitionCheck[]): Promise<ReadonlyMap<PartitionCheck, ClaimedEpoch>> {
    const [first] = checks;
    if (first === undefined) return new Map();
    const { db, cache, outbox, partitions } = this.#options;
    if (!partitions.isPartitioned) {
      const epoch = await claimAuthority(db, first.found, { cache, seen: first.authority, outbox });
      return epoch === undefined ? new Map() : new Map([[first, { ...epoch, covered: [] }]]);
    }
    const epochs = new Map<PartitionCheck, ClaimedEpoch>();
    for (const group of groupBy(checks, ({ found }) => found.postgres)) {
      const claims = group.map(({ of, found, authority }) => ({
        ...{ partition: of.partition.name, redis: found.redis, seen: authority },
      }));
      const claimed = await claimPartitions(db, claims, { cache, postgres: group[0]!.found.postgres, outbox });
      for (const check of group) {
        const epoch = claimed.get(nameOf(check));
        if (epoch !== undefined) epochs.set(check, epoch);
      }
    }
    return epochs;
  }

  /** `epoch`: undefined if another relay was first. */
  async #repairOwn(check: PartitionCheck, epoch: ClaimedEpoch | undefined, cause: RepairCause): Promise<void> {
    if (epoch === undefined) return check.of.distrust();
    await this.#repair(check, epoch, cause, { isOwn: true });
    this.#covered.push(...epoch.covered);
  }

  /** What is left after a failure is bumped once more. */
  async #deleteCovered(): Promise<void> {
    if (this.#covered.length === 0) return;
    const { db, outbox } = this.#options;
    const covered = this.#covered;
    this.#covered = [];
    await deleteCovered(db, covered, { outbox }).catch(() => {});
  }

  async #repair(
    { of, now }: Pick<PartitionCheck, 'of' | 'now'>,
    epoch: Epoch,
    cause: RepairCause,
    { isOwn } = { isOwn: false },
  ): Promise<void> {
    await of.repair(epoch, { isOwn });
    of.trust(now);
    const { partition } = of;
    const same = this.#repairs.findIndex((repair) => repair.cause === cause);
    if (same === -1) this.#repairs.push({ cause, partitions: [partition] });
    else this.#repairs[same] = { cause, partitions: [...this.#repairs[same]!.partitions, partition] };
  }

  #failed(each: readonly PartitionTrust[], error: Error): void {
    for (const one of each) one.distrust();
    const partitions = each.map(({ partition }) => partition);
    const same = this.#failures.findIndex((failure) => failure.error.message === error.message);
    if (same === -1) this.#failures.push({ error, partitions });
    else
      this.#failures[same] = { error, partitions: [...new Set([...this.#failures[same]!.partitions, ...partitions])] };
  }

  #late(step: string): StoreUnavailableError {
    return new StoreUnavailableError(
      `A primary of the Redis Cluster took more than ${this.#options.stragglerMs} ms longer than another one to ${step}.`,
      true,
    );
  }
}

function nameOf({ of }: PartitionCheck): string {
  return of.partition.name;
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => unknown): T[][] {
  const groups = new Map<unknown, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return [...groups.values()];
}

function unknownIncarnation(): StoreUnavailableError {
  return new StoreUnavailableError(
    'The incarnation of the store is unknown: INFO is refused, or does not tell run_id and master_replid, or the connection ' +
      'has just been lost. Let the user of the relay run INFO, also inside scripts; a host that does not tell them can have no relay.',
    false,
  );
}
