/**
 * The tracked generations of a cache, in all of its partitions (`local` with `mode: 'track'`).
 *
 * Tracking begins with the first lookup, in each partition at once: a connection that pushes takes no further partition
 * without beginning anew. A store that can't tell changes verifies nothing, so each read asks it, as with `verify`.
 */
import { ageMs, type Moment } from '../async/moment.js';
import type { GenerationState } from '../model/generation.js';
import { Steps } from '../model/tracked-scope.js';
import type { RegisteredScope } from '../model/scope-registry.js';
import type { Clock } from '../ports/clock.js';
import type { Partition } from '../ports/partitions.js';
import type { Beat, Tracking } from '../ports/store.js';
import type { TrackingCounts } from '../telemetry/state.js';
import type { Freshness } from './freshness.js';
import { TrackedGenerations } from './tracked-generations.js';

/** Beats in a heartbeat: one that is late, or lost, leaves generations verified. */
const BEATS = 4;

interface TrackersOptions {
  readonly partitions: readonly Partition[];
  readonly heartbeatMs: number;
  /** undefined for a cache without a bound. */
  readonly boundMs: number | undefined;
  /** By partition; undefined for a cache without a bound. */
  readonly freshness: readonly Freshness[] | undefined;
  readonly clock: Clock;
  /** Called with each beat of a partition. */
  readonly onBeat: (partition: number) => void;
  /** Called when the store of a partition does not tell changes, while that of each other one does. */
  readonly refused: (error: Error) => void;
}

export class Trackers {
  readonly #options: TrackersOptions;
  readonly #tracked: readonly TrackedGenerations[];
  readonly #beats: (Moment | undefined)[];
  readonly #refused = new Set<number>();
  readonly steps = new Steps();
  #trackings: readonly Tracking[] | undefined;

  constructor(options: TrackersOptions) {
    this.#options = options;
    this.#beats = options.partitions.map(() => undefined);
    this.#tracked = options.partitions.map((partition, i) => {
      const tracked = new TrackedGenerations({
        store: partition.store,
        steps: this.steps,
        heartbeatMs: options.heartbeatMs,
        ...(options.freshness && { freshForMs: (beat: Beat) => this.#freshForMs(options.freshness![i]!, beat) }),
        refused: (error) => this.#refuse(i, error),
      });
      partition.changed = (keys) => tracked.changed(keys);
      return tracked;
    });
  }

  /** Before a command that reads the generations of `scopes` is sent. Returns what takes their states from the reply. */
  ask(scopes: readonly RegisteredScope[]): (states: readonly GenerationState[]) => void {
    this.#trackings ??= this.#begin();
    if (this.#tracked.length === 1) {
      const tracked = this.#tracked[0]!;
      const asked = tracked.ask(scopes);
      return (states) => tracked.reply(asked, scopes, states);
    }
    const shares = new Map<number, { scopes: RegisteredScope[]; positions: number[] }>();
    for (const [position, scope] of scopes.entries()) {
      let share = shares.get(scope.partition);
      if (share === undefined) shares.set(scope.partition, (share = { scopes: [], positions: [] }));
      share.scopes.push(scope);
      share.positions.push(position);
    }
    const asked = [...shares].map(([partition, share]) => {
      const tracked = this.#tracked[partition]!;
      return { ...share, tracked, asked: tracked.ask(share.scopes) };
    });
    return (states) => {
      for (const { tracked, asked: step, scopes: own, positions } of asked) {
        tracked.reply(
          step,
          own,
          positions.map((position) => states[position]!),
        );
      }
    };
  }

  get state(): Omit<TrackingCounts, 'unverified'> {
    const ages = this.#beats.map((sentAt) => (sentAt === undefined ? undefined : ageMs(sentAt)));
    return {
      scopes: this.#tracked.reduce((sum, { size }) => sum + size, 0),
      beatAgeMs: ages.includes(undefined) ? undefined : Math.max(...(ages as number[])),
    };
  }

  close(): void {
    for (const tracking of this.#trackings ?? []) tracking.close();
    for (const tracked of this.#tracked) tracked.reset(undefined);
    this.#trackings = [];
  }

  #begin(): Tracking[] {
    const { partitions, heartbeatMs, boundMs = heartbeatMs, freshness } = this.#options;
    return partitions.map(({ store, prefix }, i) => {
      const tracked = this.#tracked[i]!;
      const beatEveryMs = Math.ceil(Math.min(heartbeatMs, boundMs) / BEATS);
      return store.track!(
        { prefix, beatEveryMs, freshnessKey: freshness?.[i]!.key },
        {
          changed: (keys) => tracked.changed(keys),
          reset: (incarnation) => tracked.reset(incarnation),
          beat: (beat) => this.#beat(i, beat),
          refused: (error) => tracked.refused(error),
        },
      );
    });
  }

  #beat(partition: number, beat: Beat): void {
    this.#refused.delete(partition);
    this.#beats[partition] = beat.sentAt;
    this.#tracked[partition]!.beat(beat);
    this.#options.onBeat(partition);
  }

  #freshForMs(freshness: Freshness, { sentAt, freshness: found }: Beat): number {
    return found === undefined ? 0 : freshness.freshForMs(found, this.#options.clock.nowMs() - ageMs(sentAt), sentAt);
  }

  #refuse(partition: number, error: Error): void {
    if (this.#refused.size === 0) this.#options.refused(error);
    this.#refused.add(partition);
  }
}
