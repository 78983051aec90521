/**
 * When this process last knew that the store had a generation, for answers while the store gives none
 * (`outage-answers.ts`; docs/protocol.md, rule 14c).
 *
 * Each reply that shows generations is a sighting of them, as of the moment before its command was sent. Tracked generations
 * are seen by each beat, too. A change that this process made, or was told of, outdates all sightings whose command was sent
 * before it ended: order is told by numbers of steps, since a clock can't tell which of two commands the store carried out
 * first.
 *
 * With a bound a sighting also has the end of the freshness key, as a command told it that was carried out before the one of
 * the sighting: until then the changes that it does not show are younger than the bound. A lookup reads the key without its
 * TTL, so the store is asked for that beside a lookup, a few times in each bound.
 */
import { ageMs, type Clocks, type Moment, momentOf, ownClocks } from '../async/moment.js';
import { withDeadline } from '../async/deadline.js';
import { inNoContext } from '../async/no-context.js';
import type { GenerationState } from '../model/generation.js';
import type { GenerationKey } from '../model/key.js';
import type { RegisteredScope } from '../model/scope-registry.js';
import type { KnownFresh, ReplySighting, Sighting } from '../model/sighting.js';
import { Steps } from '../model/tracked-scope.js';
import type { Clock } from '../ports/clock.js';
import type { Partition } from '../ports/partitions.js';
import type { Freshness } from './freshness.js';
import type { Trackers } from './trackers.js';

interface SightingsOptions {
  readonly partitions: readonly Partition[];
  /** undefined unless the cache tracks generations. */
  readonly trackers: Pick<Trackers, 'ask' | 'steps'> | undefined;
  /** By partition; undefined for a cache without a bound. */
  readonly freshness: readonly Pick<Freshness, 'key' | 'known' | 'freshForMs'>[] | undefined;
  /** The bound in ms; undefined for a cache without one. */
  readonly boundMs: number | undefined;
  /** The cache's clock. */
  readonly clock: Clock;
  /** Time limit of a request, in ms. */
  readonly deadlineMs: number;
  /** Counts a request as work under way. */
  readonly track: (request: Promise<unknown>) => void;
  readonly clocks?: Clocks;
}

/** How often a reader asks for the TTL of the freshness key in each bound, at most. */
const ASKS_OF_A_BOUND = 8;
/** Most of this process' changes that are known one by one; older ones count as changes of everything. */
const CHANGES_MAX = 10_000;
const START: Moment = { monotonicMs: 0, wallMs: 0 };
const UNBOUNDED: KnownFresh = { since: START, forMs: Infinity };
const UNKNOWN: KnownFresh = { since: START, forMs: 0 };

export class Sightings {
  readonly #options: SightingsOptions;
  readonly #clocks: Clocks;
  readonly #steps: Steps;
  #commands = 0;
  /** By partition: when its freshness key was last asked for, by the monotonic clock. */
  readonly #askedAtMs: number[] = [];
  /** The last step by which this process changed a generation, the oldest first. */
  readonly #changedAt = new Map<GenerationKey, number>();
  /** Stands at the oldest of them: a new iterator would first pass the places of all that were deleted. */
  readonly #oldestFirst = this.#changedAt.entries();
  /** The last step that is not in `#changedAt` any more. */
  #forgottenStep = 0;

  constructor(options: SightingsOptions) {
    this.#options = options;
    this.#clocks = options.clocks ?? ownClocks;
    this.#steps = options.trackers?.steps ?? new Steps();
    for (const partition of options.partitions) {
      const { changed } = partition;
      partition.changed = (keys) => {
        changed?.(keys);
        this.#changed(keys);
      };
    }
  }

  /** Before a command that reads the generations of `scopes` is sent. Returns what takes their states from the reply. */
  ask(scopes: readonly RegisteredScope[]): (states: readonly GenerationState[]) => void {
    const tracked = this.#options.trackers?.ask(scopes);
    const at = momentOf(this.#clocks);
    const step = this.#steps.now;
    const command = ++this.#commands;
    const byPartition: ReplySighting[] = [];
    for (const { partition } of scopes) {
      byPartition[partition] ??= { at, fresh: this.#freshBefore(partition, at), step, command };
    }
    return (states) => {
      tracked?.(states);
      for (let i = 0; i < scopes.length; i++) {
        const scope = scopes[i]!;
        // A reply of an earlier connection may come after that of a later command.
        if (scope.sighting !== undefined && scope.sighting.command > command) continue;
        const state = states[i]!;
        const stands = state !== 'missing' && state !== 'quarantined' && state !== 'foreign';
        scope.sighted = stands ? state : undefined;
        scope.sighting = byPartition[scope.partition]!;
      }
    };
  }

  /**
   * Returns how long ago the store was last known to have the generation that `scope` was seen with, in ms; Infinity where that
   * may have changed, as far as this process was told, and where the bound is over.
   */
  ageMs({ sighted, sighting, tracked, generationKey }: RegisteredScope): number {
    if (sighted === undefined || sighting === undefined) return Infinity;
    const { step } = sighting;
    const isOutdated =
      (this.#changedAt.get(generationKey) ?? this.#forgottenStep) > step ||
      (tracked !== undefined && tracked.toldAt > step);
    const ms = isOutdated ? Infinity : this.#ageMs(sighting);
    return tracked?.verified === sighted ? Math.min(ms, this.#ageMs(tracked.watch.lastBeat)) : ms;
  }

  #ageMs(sighting: Sighting | undefined): number {
    if (sighting === undefined) return Infinity;
    const { since, forMs } = sighting.fresh;
    // The wall clock tells whole ms: an ms that has begun counts.
    if (ageMs(since, this.#clocks) >= forMs - 1) return Infinity;
    return ageMs(sighting.at, this.#clocks);
  }

  /** Of changes by this process, successful or not, before their promise settles. */
  #changed(keys: readonly GenerationKey[]): void {
    const step = ++this.#steps.now;
    for (const key of keys) {
      this.#changedAt.delete(key);
      this.#changedAt.set(key, step);
    }
    while (this.#changedAt.size > CHANGES_MAX) {
      const [key, changedAt] = this.#oldestFirst.next().value!;
      this.#changedAt.delete(key);
      this.#forgottenStep = changedAt;
    }
  }

  /** For how long a partition is fresh, by what was told before a command that is sent now. */
  #freshBefore(partition: number, at: Moment): KnownFresh {
    const { freshness, boundMs } = this.#options;
    if (freshness === undefined) return UNBOUNDED;
    const { known } = freshness[partition]!;
    const lastMs = Math.max(this.#askedAtMs[partition] ?? -Infinity, known?.since.monotonicMs ?? -Infinity);
    if (at.monotonicMs - lastMs > boundMs! / ASKS_OF_A_BOUND) this.#askFreshness(partition, at);
    return known ?? UNKNOWN;
  }

  #askFreshness(partition: number, at: Moment): void {
    const { partitions, freshness, clock, deadlineMs, track } = this.#options;
    const { store } = partitions[partition]!;
    if (store.freshness === undefined) return;
    this.#askedAtMs[partition] = at.monotonicMs;
    const own = freshness![partition]!;
    const sentAtMs = clock.nowMs();
    const request = inNoContext(() =>
      withDeadline('freshness', deadlineMs, (deadline) => store.freshness!(own.key, deadline)).then(
        (reading) => void own.freshForMs(reading, sentAtMs, at),
        // The reads of this cache tell the failures of its store.
        () => {},
      ),
    );
    track(request);
  }
}
