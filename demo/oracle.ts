/**
 * Judges the answers of the cache by its own copy of the tables in memory (`tables.ts`), to which each edit makes the same
 * change as to the database. The unit is an entry: the workflows of a detector that are bound to one environment, or those
 * that are bound to none.
 *
 * A commit takes effect at an instant between the sending of COMMIT and its answer, which only the database knows. So a
 * state of an entry was possibly current from the sending of the COMMIT that made it until the answer to the COMMIT that
 * replaced it.
 *
 *     edit 1:    statement   COMMIT sent . answered     bump ends
 *     state 0:  ───────────────────────────┤╌╌╌╌╌╌╌╌╌╌╌╌╌╌┤
 *     state 1:                           ├───────────────────────────────
 *
 * - **fresh**: the answer equals a state possibly current (──) at some instant between the read's start and its answer.
 * - **excused**: the answer equals only a state whose replacement had not been bumped yet (╌╌) when the read began. A
 *   relay's lag allows that (ladder step 3). With `--local track` a heartbeat more: beside the ladder.
 * - **stale**: neither. A stale read is a defect of gencache.
 *
 * **Invariant.** Edits commit one after another, so each entry's states have one order. Instants are monotonic, in ms.
 */
import type { Workflow } from '../lib/workflow-engine/index.js';
import type { Tables } from './tables.js';

export type Judgement = 'fresh' | 'excused' | 'stale';

/** The instants at which a read began and was answered. */
export interface ReadSpan {
  readonly startedAtMs: number;
  readonly answeredAtMs: number;
}

/** An edit whose COMMIT was sent. */
export class Change {
  committedAtMs = Infinity;
  bumpedAtMs = Infinity;

  /** Notes that COMMIT was answered. */
  committed(): void {
    this.committedAtMs = performance.now();
  }

  /** Notes that the bump has ended. */
  bumped(): void {
    this.bumpedAtMs = performance.now();
  }
}

interface State {
  readonly text: string;
  readonly sinceMs: number;
  replacedBy?: Change;
}

export class Oracle {
  readonly tables: Tables;
  /** The states of each entry that has ever changed, oldest first. */
  readonly #states = new Map<string, State[]>();

  readonly #excusedForMs: number;

  /** `excusedForMs`: how long after a bump a read may not know of it. */
  constructor(tables: Tables, excusedForMs = 0) {
    this.tables = tables;
    this.#excusedForMs = excusedForMs;
  }

  /** Call it right before COMMIT is sent. `apply` makes the transaction's change to the tables, for these detectors only. */
  committing(detectors: readonly number[], apply: (tables: Tables) => void): Change {
    const change = new Change();
    const sinceMs = performance.now();
    const before = detectors.map((detector) => this.tables.entriesOf(detector));
    apply(this.tables);
    detectors.forEach((detector, i) => {
      const after = this.tables.entriesOf(detector);
      for (const environment of new Set([...before[i]!.keys(), ...after.keys()])) {
        const was = textOf(before[i]!.get(environment));
        const is = textOf(after.get(environment));
        if (was === is) continue;
        const key = keyOf(detector, environment);
        let states = this.#states.get(key);
        if (!states) this.#states.set(key, (states = [{ text: was, sinceMs: -Infinity }]));
        states.at(-1)!.replacedBy = change;
        states.push({ text: is, sinceMs });
      }
    });
    return change;
  }

  /** `workflows`: those bound to this environment; for null, those bound to none. */
  judge(detector: number, environment: number | null, workflows: readonly Workflow[], read: ReadSpan): Judgement {
    const text = textOf(workflows);
    const states = this.#states.get(keyOf(detector, environment));
    if (!states) return text === textOf(this.tables.entriesOf(detector).get(environment)) ? 'fresh' : 'stale';
    let excused = false;
    for (const state of states) {
      if (state.text !== text || state.sinceMs > read.answeredAtMs) continue;
      if (state.replacedBy === undefined || state.replacedBy.committedAtMs >= read.startedAtMs) return 'fresh';
      if (state.replacedBy.bumpedAtMs + this.#excusedForMs >= read.startedAtMs) excused = true;
    }
    return excused ? 'excused' : 'stale';
  }
}

function keyOf(detector: number, environment: number | null): string {
  return `${detector}/${environment}`;
}

/** Every property of every workflow, so that any difference shows. */
function textOf(workflows: readonly Workflow[] = []): string {
  return JSON.stringify(workflows);
}
