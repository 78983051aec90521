import type { Knex } from 'knex';
import { monotonicMs } from '../../async/scheduling.js';
import { namespaceOf } from '../../model/key.js';
import type { OutboxOptions } from '../outbox/location.js';
import { type NameFault, PublishedCaches } from '../outbox/published-caches.js';
import { ANSWER_MS } from '../outbox/survey.js';
import { hasFreeConnection } from '../postgres/pooled-connection.js';

/** Paths of one batch that are compared: a path that is bumped often is met sooner or later. */
const SAMPLES_MAX = 20;
/** What applications publish is read again after this time, and before a new fault is told, in ms. */
const READ_EVERY_MS = 60_000;
/** The same fault is told again after this time, in ms. */
const TELL_EVERY_MS = 3_600_000;
/** Most faults that are remembered; beyond, no further one is told within that time. */
const TOLD_MAX = 100;

interface StrangePathsOptions {
  readonly db: Knex;
  readonly cache: string;
  readonly outbox: OutboxOptions;
  /** Called with a fault and its remedy. */
  readonly warn: (message: string) => void;
}

/**
 * Compares bumped paths with the namespaces that applications publish: a bump of a path that no reader can have is a
 * misspelt name in a trigger, or the wrong column. It runs behind the batches, after their commit, and sees some of their
 * paths; no batch waits for it, or fails with it. A role that may not read what is published is told nothing.
 */
export class StrangePaths {
  readonly #options: StrangePathsOptions;
  #published: PublishedCaches | undefined;
  #readAtMs = -Infinity;
  readonly #toldAtMs = new Map<string, number>();
  #underWay: Promise<void> | undefined;

  constructor(options: StrangePathsOptions) {
    this.#options = options;
  }

  /** Resolves when no comparison is under way. */
  get settled(): Promise<void> {
    return this.#underWay ?? Promise.resolve();
  }

  /** Compares some of the paths of a batch. Two queries where something new is found, and once a minute. */
  compare(paths: readonly string[]): void {
    if (this.#underWay !== undefined || paths.length === 0) return;
    const step = Math.ceil(paths.length / SAMPLES_MAX);
    const samples = paths.filter((_, i) => i % step === 0);
    const isOld = monotonicMs() - this.#readAtMs >= READ_EVERY_MS;
    if (!isOld && this.#untold(samples).length === 0) return;
    if (!hasFreeConnection(this.#options.db)) return;
    const comparing = this.#compare(samples).catch(() => {});
    this.#underWay = comparing.finally(() => (this.#underWay = undefined));
  }

  async #compare(samples: readonly string[]): Promise<void> {
    const { db, outbox, warn } = this.#options;
    this.#readAtMs = monotonicMs();
    this.#published = await PublishedCaches.read(db, outbox, { answerMs: ANSWER_MS });
    for (const [fault, { message, remedy }] of this.#untold(samples)) {
      if (this.#isTold(fault)) continue;
      this.#toldAtMs.set(fault, monotonicMs());
      warn(`A bump reaches no reader. ${message} ${remedy}`);
    }
  }

  /** The faults of these paths that were not told lately, by what tells them apart. */
  #untold(samples: readonly string[]): (readonly [string, NameFault])[] {
    const { cache } = this.#options;
    const published = this.#published;
    if (published === undefined) return [];
    const name = published.nameFault(cache);
    const faults =
      name !== undefined
        ? [['', name] as const]
        : samples.flatMap((path) => {
            const fault = published.pathFault(cache, path);
            return fault === undefined ? [] : [[namespaceOf(path), fault] as const];
          });
    return faults.filter(([fault]) => !this.#isTold(fault));
  }

  #isTold(fault: string): boolean {
    const nowMs = monotonicMs();
    for (const [told, atMs] of this.#toldAtMs) if (nowMs - atMs >= TELL_EVERY_MS) this.#toldAtMs.delete(told);
    return this.#toldAtMs.has(fault) || this.#toldAtMs.size >= TOLD_MAX;
  }
}
