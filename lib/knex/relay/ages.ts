import type { Snapshot } from '../outbox/snapshot.js';
import type { Survey } from '../outbox/survey.js';

interface Check {
  readonly timeMs: number;
  readonly snapshot: Snapshot;
}

/** Checks remembered while events wait; beyond, every other one is forgotten, which only makes ages larger. */
const CHECKS_MAX = 64;

/**
 * How old the oldest event can be, told by snapshots and the store's clock alone.
 *
 * An event that an earlier check could not see became visible after it. So if no event that is there now was visible
 * in that check's snapshot, everything committed before that check has been bumped, and what readers were
 * served since is younger than it. `baseMs` is the latest such check's time: the age of the oldest event, counted from
 * the last check that did not see it, is the time since, and is never negative.
 *
 * **Invariant.** Every change that was visible at `baseMs` has been bumped.
 *
 * A relay that has just begun has no earlier check: until it meets an empty outbox, or has outlived what it found, it
 * vouches for nothing.
 */
export class Ages {
  #checks: Check[] = [];
  #baseMs: number | undefined;

  /** The snapshots that the next survey is to be asked about: the oldest and the latest check not yet outlived. */
  get asked(): readonly Snapshot[] {
    const [oldest] = this.#checks;
    const latest = this.#checks.at(-1);
    return oldest === undefined ? [] : oldest === latest ? [oldest.snapshot] : [oldest.snapshot, latest!.snapshot];
  }

  /** `timeMs`: read from the store's clock before the survey. Returns `baseMs`, undefined until there is one. */
  check(timeMs: number, { snapshot, oldest, left, held, visibleIn }: Survey): number | undefined {
    const empty = oldest === undefined && left.length === 0 && !held;
    if (empty) {
      this.#checks = [];
      this.#baseMs = timeMs;
      return timeMs;
    }
    const latest = this.#checks.at(-1);
    if (latest !== undefined && visibleIn.at(-1) === false) {
      this.#baseMs = latest.timeMs;
      this.#checks = [];
    } else if (latest !== undefined && visibleIn[0] === false) {
      this.#baseMs = this.#checks.shift()!.timeMs;
    }
    this.#checks.push({ timeMs, snapshot });
    if (this.#checks.length > CHECKS_MAX) this.#checks = this.#checks.filter((_, i) => i % 2 === 0);
    return this.#baseMs;
  }

  /** Another incarnation of PostgreSQL or Redis: nothing seen before counts. */
  reset(): void {
    this.#checks = [];
    this.#baseMs = undefined;
  }
}
