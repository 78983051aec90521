import { type Snapshot, wasVisible } from '../postgres/snapshot.js';
import type { EarlierSnapshots, OutboxSurvey } from '../outbox/survey.js';
import type { EventPosition } from '../outbox/event-position.js';

/** What an age is counted from: an instant by the store's clock, and by this process's own. */
export interface Instant {
  /** Of the store, in ms. */
  readonly timeMs: number;
  /** Monotonic, in ms, before the store was asked. */
  readonly ownMs: number;
}

interface Check extends Instant {
  readonly snapshot: Snapshot;
}

/** Checks remembered while events wait; beyond, every other one is forgotten, which only makes ages larger. */
const CHECKS_MAX = 64;

/**
 * How old the oldest event can be, told by snapshots alone.
 *
 * An event that an earlier check could not see became visible after it. So if no event that is there now was visible
 * in that check's snapshot, everything committed before that check has been bumped, and what readers were
 * served since is younger than it. The base is the latest such check: the age of the oldest event, counted from
 * the last check that did not see it, is the time since.
 *
 * **Invariant.** Every change that was visible at the base has been bumped.
 *
 * The time since is the longer of two: by the store's clock, which may be set back, and by this process's own, which
 * stands still while the machine sleeps.
 *
 * A relay that has just begun has no earlier check: until it meets an empty outbox, or has outlived what it found, it
 * vouches for nothing.
 */
export class EventAges {
  #checks: Check[] = [];
  #base: Instant | undefined;

  /** What the next survey is to be asked: about the checks not yet outlived. */
  get earlierSnapshots(): EarlierSnapshots | undefined {
    const [oldest] = this.#checks;
    const latest = this.#checks.at(-1);
    return oldest && latest && { oldest: oldest.snapshot, latest: latest.snapshot };
  }

  /**
   * `now`: taken before the survey. Returns an age, in ms, that every change which is not bumped is younger than;
   * undefined until there is one.
   */
  check(now: Instant, survey: OutboxSurvey): number | undefined {
    const { snapshot, pendingEvents, tail, heldByMigration } = survey;
    const events = [...pendingEvents, ...tail, ...heldByMigration];
    if (events.length === 0) {
      this.#checks = [];
      this.#base = now;
    } else {
      // What one check saw, all later ones did.
      const outlived = this.#checks.findLastIndex((check) => !sawAny(check.snapshot, events, survey));
      if (outlived !== -1) {
        this.#base = this.#checks[outlived]!;
        this.#checks = this.#checks.slice(outlived + 1);
      }
      this.#checks.push({ ...now, snapshot });
      if (this.#checks.length > CHECKS_MAX) this.#checks = this.#checks.filter((_, i) => i % 2 === 0);
    }
    const base = this.#base;
    return base && Math.max(now.timeMs - base.timeMs, now.ownMs - base.ownMs);
  }

  /** Another incarnation of PostgreSQL or Redis: nothing seen before counts. */
  reset(): void {
    this.#checks = [];
    this.#base = undefined;
  }
}

/** Whether the check saw any of these, or may have seen one that the survey did not list. */
function sawAny(
  earlier: Snapshot,
  events: readonly EventPosition[],
  { snapshot, tail, isTailCut }: OutboxSurvey,
): boolean {
  if (isTailCut && tail.at(-1)!.xid < earlier.xmax) return true;
  // An id that is yet to be given came in with a restored dump, nobody knows when.
  return events.some(({ xid }) => xid >= snapshot.xmax || wasVisible(xid, earlier));
}
