import type { Generation } from './generation.js';
import type { GenerationKey } from './key.js';
import type { Watch } from './watch.js';

/** Counts what may make a generation unverified: pushes, own bumps, resets, and scopes that are forgotten. */
export class Steps {
  now = 0;
}

/** The generation of a scope as the store's pushes tell it; `read/tracked-generations.ts` keeps it. */
export class TrackedScope {
  /** The generation that the store has, as long as `watch` is live; undefined if only a read can tell. */
  verified: Generation | undefined;
  /** The watch during which `verified` was read. */
  watch: Watch;
  /** Number of the last step that may have changed the generation. */
  changedAt: number;
  /** Number of the last step that told of a change; -1 before the first. */
  toldAt = -1;
  /** Whether pushes no longer reach this object. */
  isForgotten = false;
  readonly #key: GenerationKey;
  readonly #tracked: Map<GenerationKey, TrackedScope>;
  readonly #steps: Steps;

  constructor(key: GenerationKey, tracked: Map<GenerationKey, TrackedScope>, watch: Watch, steps: Steps) {
    this.#key = key;
    this.#tracked = tracked;
    this.#steps = steps;
    this.watch = watch;
    this.changedAt = steps.now;
    tracked.set(key, this);
  }

  /** Ends the tracking of this scope: without pushes it must not stay verified (docs/protocol.md, rule 18a). */
  forget(): void {
    this.#steps.now++;
    this.verified = undefined;
    this.isForgotten = true;
    this.#tracked.delete(this.#key);
  }
}
