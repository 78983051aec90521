/**
 * The generations that this process knows without a round trip, since the store tells which ones change.
 *
 * Three streams meet here: replies of reads, pushes of changed keys, and beats. A beat is a command that comes back as a
 * push, so it has passed every push of a change before it (`ports/store.ts`).
 *
 *     unverified  --reply, no push or reset since its command was sent-->  verified
 *     verified    --push, own bump-->  unverified
 *     all         --reset-->  unverified, and so are the replies under way
 *
 * **Invariant.** A generation that `isVerified` confirms was the store's at some moment after the last beat that has
 * arrived was sent, and that moment is less than the heartbeat ago, by a clock that goes on while the machine sleeps. So
 * nothing that changed is confirmed for longer than the heartbeat, whatever becomes of connections; this process's own
 * bumps count before their promise resolves.
 *
 * A push says that a key was touched, not that its value is another one: renewing a TTL pushes too. So it makes the scope
 * unverified and removes nothing; the next read compares.
 *
 * A reset costs no walk over the scopes, but for a flush: it ends the watch that they refer to.
 */
import { type Clocks, ownClocks } from '../async/moment.js';
import type { Generation, GenerationState } from '../model/generation.js';
import type { GenerationKey } from '../model/key.js';
import type { RegisteredScope } from '../model/scope-registry.js';
import { Steps, TrackedScope } from '../model/tracked-scope.js';
import { Watch } from '../model/watch.js';
import type { Beat, StorePartition, TrackingListener } from '../ports/store.js';

interface TrackedGenerationsOptions {
  /** Names the server that commands go to at the moment. */
  readonly store: Pick<StorePartition, 'incarnation'>;
  /** How long a beat counts after it was sent, in ms. */
  readonly heartbeatMs: number;
  /** For a cache with a bound: how long after `beat.sentAt` the store is known to be fresh, in ms. */
  readonly freshForMs?: (beat: Beat) => number;
  readonly refused: (error: Error) => void;
  readonly clocks?: Clocks;
  /** One for all partitions of a cache. */
  readonly steps?: Steps;
}

/** Of a read whose reply verifies nothing. */
const UNTRACKED = -1;

/** The tracked generations of one partition. */
export class TrackedGenerations implements TrackingListener {
  readonly #options: TrackedGenerationsOptions;
  readonly #clocks: Clocks;
  /** Every scope that a read has asked for, so that pushes find it, also while its first reply is under way. */
  readonly #tracked = new Map<GenerationKey, TrackedScope>();
  #watch: Watch;
  /** The server whose changes are told; undefined while none are. */
  #incarnation: string | undefined;
  readonly #steps: Steps;
  #resetAt = 0;

  constructor(options: TrackedGenerationsOptions) {
    this.#options = options;
    this.#clocks = options.clocks ?? ownClocks;
    this.#steps = options.steps ?? new Steps();
    this.#watch = new Watch(this.#clocks);
  }

  /** Number of scopes that pushes can reach. */
  get size(): number {
    return this.#tracked.size;
  }

  /**
   * To be called before a command that reads these scopes of the partition is sent. Returns the number of the last step
   * before it, for `reply`.
   */
  ask(scopes: readonly RegisteredScope[]): number {
    if (!this.#isTold()) return UNTRACKED;
    for (const scope of scopes) {
      if (scope.tracked?.isForgotten === false) continue;
      // Scopes that the registry made one after another for the same key share what is known of it.
      scope.tracked =
        this.#tracked.get(scope.generationKey) ??
        new TrackedScope(scope.generationKey, this.#tracked, this.#watch, this.#steps);
    }
    return this.#steps.now;
  }

  /** Takes the generations that a read showed, `scopes: [n], states: [n]`, unless one may have changed since it was sent. */
  reply(asked: number, scopes: readonly RegisteredScope[], states: readonly GenerationState[]): void {
    if (asked < this.#resetAt || !this.#isTold()) return;
    for (let i = 0; i < scopes.length; i++) {
      const { tracked } = scopes[i]!;
      if (tracked === undefined || tracked.isForgotten || tracked.changedAt > asked) continue;
      const state = states[i]!;
      const stands = state !== 'missing' && state !== 'quarantined' && state !== 'foreign';
      const verified = stands ? state : undefined;
      // What was verified before is so no more, without a push of it so far.
      if (tracked.verified !== undefined && tracked.verified !== verified) this.#steps.now++;
      tracked.verified = verified;
      tracked.watch = this.#watch;
    }
  }

  /** Of pushes; and of this process's own bumps, successful or not, before their promise settles. */
  changed(keys: readonly GenerationKey[]): void {
    const step = ++this.#steps.now;
    for (const key of keys) {
      const tracked = this.#tracked.get(key);
      if (tracked === undefined) continue;
      tracked.verified = undefined;
      tracked.changedAt = tracked.toldAt = step;
    }
  }

  reset(incarnation: string | undefined): void {
    // A flush, and other data in the same server: what was verified before is known to be gone.
    if (this.#incarnation !== undefined && incarnation !== undefined) this.changed([...this.#tracked.keys()]);
    this.#resetAt = ++this.#steps.now;
    this.#incarnation = incarnation;
    this.#watch.end();
    this.#watch = new Watch(this.#clocks);
  }

  beat(beat: Beat): void {
    const { heartbeatMs, freshForMs } = this.#options;
    const forMs = freshForMs === undefined ? Infinity : freshForMs(beat);
    this.#watch.extend(beat.sentAt, Math.min(heartbeatMs, forMs));
    this.#watch.lastBeat = { at: beat.sentAt, fresh: { since: beat.sentAt, forMs } };
  }

  refused(error: Error): void {
    this.#options.refused(error);
  }

  /** Whether commands go to the server whose changes are told. */
  #isTold(): boolean {
    return this.#incarnation !== undefined && this.#incarnation === this.#options.store.incarnation;
  }
}

/** Whether these are the generations of `scopes`, by position, as far as the store tells. No round trip; no allocation. */
export function isVerified(scopes: readonly RegisteredScope[], generations: readonly Generation[]): boolean {
  let live: Watch | undefined;
  for (let i = 0; i < scopes.length; i++) {
    const { tracked } = scopes[i]!;
    if (tracked === undefined || tracked.verified !== generations[i]) return false;
    if (tracked.watch === live) continue;
    if (!tracked.watch.isLive()) return false;
    live = tracked.watch;
  }
  return true;
}
