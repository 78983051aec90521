/**
 * Judges what the cache answered, by knowledge of its own: the tables in memory (`tables.ts`), changed by each edit as
 * the database is. The unit is an entry, the workflows of a detector bound to one environment, or those bound to none.
 *
 * Nobody outside the database knows when a commit takes effect: at some instant between COMMIT being sent and its
 * answer. So a state of an entry was possibly current from the sending of the COMMIT that made it
 * until the answer to the COMMIT that replaced it.
 *
 *     edit 1:    statement   COMMIT sent . answered     bump ends
 *     state 0:  ───────────────────────────┤╌╌╌╌╌╌╌╌╌╌╌╌╌╌┤
 *     state 1:                           ├───────────────────────────────
 *
 * - **fresh**: the answer equals a state possibly current (──) at some instant between the read's start and its answer.
 * - **excused**: only a state whose replacement had not been bumped yet (╌╌) when the read began: what a relay's lag
 *   (ladder step 3) allows.
 * - **stale**: neither. No read may be.
 *
 * **Invariant.** Edits commit one after another, so each entry's states have one order. Instants are monotonic, in ms.
 */
import type { Workflow } from '../lib/workflow-engine/index.js';
import type { Tables } from './tables.js';

export type Judgement = 'fresh' | 'excused' | 'stale';

/** When a read began and was answered. */
export interface ReadSpan {
  readonly startedAtMs: number;
  readonly answeredAtMs: number;
}

/** An edit whose COMMIT was sent; until told, it was neither answered nor bumped. */
export class Change {
  committedAtMs = Infinity;
  bumpedAtMs = Infinity;

  /** COMMIT was answered. */
  committed(): void {
    this.committedAtMs = performance.now();
  }

  /** The bump has ended. */
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
  /** Of the entries that have ever changed: their states, oldest first. */
  readonly #states = new Map<string, State[]>();

  constructor(tables: Tables) {
    this.tables = tables;
  }

  /** Call right before COMMIT is sent. `apply` does to the tables what the transaction did, to these detectors only. */
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

  /** `workflows`: those bound to that very environment, or to none where it is null. */
  judge(detector: number, environment: number | null, workflows: readonly Workflow[], read: ReadSpan): Judgement {
    const text = textOf(workflows);
    const states = this.#states.get(keyOf(detector, environment));
    if (!states) return text === textOf(this.tables.entriesOf(detector).get(environment)) ? 'fresh' : 'stale';
    let excused = false;
    for (const state of states) {
      if (state.text !== text || state.sinceMs > read.answeredAtMs) continue;
      if (state.replacedBy === undefined || state.replacedBy.committedAtMs >= read.startedAtMs) return 'fresh';
      if (state.replacedBy.bumpedAtMs >= read.startedAtMs) excused = true;
    }
    return excused ? 'excused' : 'stale';
  }
}

function keyOf(detector: number, environment: number | null): string {
  return `${detector}/${environment}`;
}

/** Every property of every workflow, so that a difference in any of them shows. */
function textOf(workflows: readonly Workflow[] = []): string {
  return JSON.stringify(workflows);
}
