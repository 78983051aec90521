import { type Snapshot, wasVisible } from '../postgres/snapshot.js';
import type { EarlierSnapshots, OutboxSurvey } from '../outbox/survey.js';
import type { EventPosition } from '../outbox/event-position.js';

/** The base of an age: one instant, by the store's clock and by this process's own. */
export interface Instant {
  /** By the store's clock, in ms. */
  readonly timeMs: number;
  /** By this process's monotonic clock, in ms, before the query for the store's time. */
  readonly ownMs: number;
}

interface Check {
  readonly snapshot: Snapshot;
  /** This check, then the base of each before it: each saw no event that the one before it in this list found. */
  readonly bases: readonly Instant[];
}

/** Checks kept while events wait; beyond that, every other one is dropped, which only makes ages larger. */
const CHECKS_MAX = 64;

/**
 * The greatest possible age of the oldest event, derived from snapshots alone (docs/protocol.md, rule 9).
 *
 * An event that an earlier check did not see became visible after it. So if that check saw no event that is left now, all
 * events of changes that committed before the check are gone, and every event that is left is younger.
 *
 * An event without a lookup is gone once its scope is bumped. A lookup may miss a scope, since a later change took away a row on
 * its way; then the event of that change bumps the scope, by a lookup of its own perhaps. That event was committed before the
 * lookup, so a check that no longer finds the first event sees the second one. So for each lookup on which another may rest,
 * the base goes back by one check more:
 *
 *     base  ->  sees none of what it saw  ->  ...  ->  now, which sees none of what that saw
 *
 * `OutboxSurvey.lookups` bounds the length of the chain. An empty outbox is the base for any length.
 *
 * **Invariant.** Every change that was visible at the base has been bumped. The age is the time since the base.
 *
 * The time since the base is the longer of two: by the store's clock, which may be set back, and by this process's clock,
 * which stands still while the machine sleeps.
 *
 * Of several partitions each has ages of its own: its events are those that wait, which may concern it, and those whose bump it
 * owes. Of these the first is known, with the position of the oldest event of its batch, so a check counts as having seen
 * it if it may have seen any event from that position on.
 *
 * A relay that has just begun has no earlier check: it guarantees no bound until it meets an empty outbox, or all events
 * of its first check are gone, and so on for each lookup.
 */
export class EventAges {
  #checks: Check[] = [];
  /** The latest check that saw no event which is left, and its bases. */
  #bases: readonly Instant[] = [];
  /** The most lookups that a survey has shown. */
  #lookups = 0;

  /** The snapshots of the checks that saw an event which may still be left, for the next survey. */
  get earlierSnapshots(): EarlierSnapshots | undefined {
    const [oldest] = this.#checks;
    const latest = this.#checks.at(-1);
    return oldest && latest && { oldest: oldest.snapshot, latest: latest.snapshot };
  }

  /**
   * `now`: an instant before the survey. `owed`: the first transaction whose bumps the partition owes. Returns the age in ms: every change that is not bumped is younger. undefined without
   * a base.
   */
  check(now: Instant, survey: OutboxSurvey, owed?: bigint): number | undefined {
    const { snapshot, pendingEvents, tail, heldByMigration, lookups } = survey;
    if (lookups > this.#lookups) {
      // Earlier checks know too few bases.
      this.reset();
      this.#lookups = lookups;
    }
    const length = this.#lookups + 1;
    const events = [...pendingEvents, ...tail, ...heldByMigration];
    if (events.length === 0 && owed === undefined) {
      this.#checks = [];
      this.#bases = Array<Instant>(length).fill(now);
    } else {
      // Later checks saw every event that an earlier check saw.
      const outlived = this.#checks.findLastIndex((check) => !sawAny(check.snapshot, events, survey, owed));
      if (outlived !== -1) {
        this.#bases = this.#checks[outlived]!.bases;
        this.#checks = this.#checks.slice(outlived + 1);
      }
      this.#checks.push({ snapshot, bases: [now, ...this.#bases].slice(0, length) });
      if (this.#checks.length > CHECKS_MAX) this.#checks = this.#checks.filter((_, i) => i % 2 === 0);
    }
    const base = this.#bases[this.#lookups];
    return base && Math.max(now.timeMs - base.timeMs, now.ownMs - base.ownMs);
  }

  /** For another incarnation of PostgreSQL or Redis, to which earlier checks do not apply. */
  reset(): void {
    this.#checks = [];
    this.#bases = [];
  }
}

/** The widest of these, for one survey that serves the ages of several partitions. */
export function widest(earlier: readonly (EarlierSnapshots | undefined)[]): EarlierSnapshots | undefined {
  return earlier.reduce((wide, each) => {
    if (wide === undefined || each === undefined) return wide ?? each;
    return {
      oldest: isOlder(each.oldest, wide.oldest) ? each.oldest : wide.oldest,
      latest: isOlder(wide.latest, each.latest) ? each.latest : wide.latest,
    };
  }, undefined);
}

/** Of two snapshots with the same `xmax`, the older one has more open transactions. */
function isOlder(one: Snapshot, other: Snapshot): boolean {
  return one.xmax < other.xmax || (one.xmax === other.xmax && one.open.length > other.open.length);
}

/** Whether the check saw one of these events, or may have seen one that the survey does not list. */
function sawAny(
  earlier: Snapshot,
  events: readonly EventPosition[],
  { snapshot, tail, isTailCut }: OutboxSurvey,
  owed: bigint | undefined,
): boolean {
  if (owed !== undefined && (owed < earlier.xmax || owed >= snapshot.xmax)) return true;
  if (isTailCut && tail.at(-1)!.xid < earlier.xmax) return true;
  // An id that is yet to be given came with a restored dump, at an unknown time.
  return events.some(({ xid }) => xid >= snapshot.xmax || wasVisible(xid, earlier));
}
