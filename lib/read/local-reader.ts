/**
 * Answers reads of one entry from this process alone: with a value of the local tier whose generations are all verified
 * (`tracked-generations.ts`; docs/protocol.md, rules 14 to 16).
 *
 * **Invariant.** A value is the answer only if each generation in its key is verified at this moment, before the end of its
 * TTL by the latest that the store's clock can be, while no bump by this process of its scopes is missing, and while the
 * cache's number of partitions is registered. In all other cases the store is asked.
 *
 * A hit must cost about what a Map costs. So of an entry without a key and without dependencies it allocates nothing, finds
 * the value on its scope, and counts in numbers of its own, which statistics collect when they are read.
 */
import { monotonicMs, wallMs } from '../async/scheduling.js';
import { ABSENT } from '../codec/envelope.js';
import type { EntryDefinition } from '../model/entry-definition.js';
import type { EntryLocation } from '../model/entry-location.js';
import type { Generation } from '../model/generation.js';
import type { Steps } from '../model/tracked-scope.js';
import type { RegisteredScope } from '../model/scope-registry.js';
import type { Watch } from '../model/watch.js';
import type { Clock } from '../ports/clock.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { Attributes } from '../telemetry/events.js';
import type { UnverifiedReason } from '../telemetry/state.js';
import type { CheapHits } from '../telemetry/statistics.js';
import { ageOf } from './age.js';
import type { LayoutRegistration } from './layout-registration.js';
import type { LocalEntry, LocalTier } from './local-tier.js';
import { LocalHit, type Miss, missOf } from './lookup.js';
import type { Lookups } from './lookups.js';
import type { MissingBumps } from './safe-lookup.js';
import type { StoreClock } from './store-clock.js';
import { isVerified } from './tracked-generations.js';
import type { Verifier } from './verifier.js';

interface LocalReadsOptions {
  readonly tier: LocalTier;
  readonly lookup: Pick<Lookups, 'locationOf'>;
  readonly clock: Clock;
  /** Whether `clock` runs with the wall clock of this process. */
  readonly isOwnClock: boolean;
  readonly steps: Steps;
  /** By partition. */
  readonly storeClocks: readonly StoreClock[];
  readonly unbumped: MissingBumps;
  readonly registration: Pick<LayoutRegistration, 'stands'> | undefined;
  readonly verifier: Verifier | undefined;
  /** Loads an entry anew, behind an answer. */
  readonly refresh: (missed: Miss) => void;
  readonly telemetry: Emitter;
}

type AnyIds = Readonly<Record<string, unknown>>;

/** What the readers of all entries of a cache share. */
export class LocalReads {
  /** The watch that was live at the last reading of the clocks, and the number of answers that go by it yet. */
  #watch: Watch | undefined;
  #answersLeft = 0;
  /** The latest that the store's clock can be, by that reading. */
  #tick = 0;
  readonly #startedAtMs = wallMs();
  readonly options: LocalReadsOptions;
  readonly steps: Steps;
  readonly #unbumped: MissingBumps;
  readonly #registration: LocalReadsOptions['registration'];
  /** Number of listeners of `read` that the cache itself has: they need no event of a hit. */
  readonly ownListeners: number;
  /** Number of reads that asked the store, by reason. */
  readonly unverified: Record<UnverifiedReason, number> = {
    not_held: 0,
    changed: 0,
    heartbeat: 0,
    expired: 0,
    unbumped: 0,
    unregistered: 0,
  };
  /** By partition: the latest that the store's clock can be in one ms of the wall clock, and that ms. */
  readonly #latest: { wallMs: number; storeMs: number }[];

  constructor(options: LocalReadsOptions) {
    this.options = options;
    this.steps = options.steps;
    this.#unbumped = options.unbumped;
    this.#registration = options.registration;
    this.ownListeners = options.telemetry.listeners('read');
    this.#latest = options.storeClocks.map(() => ({ wallMs: NaN, storeMs: Infinity }));
  }

  /**
   * Whether an earlier answer is one now too, by time: its watch is live, and its TTL not over. The clock is read once for 16
   * answers of one synchronous run, where it would cost more than all the rest. A process that is stopped within such a run may
   * have been stopped as well between an answer and its use; before any other work, such as a request that waits in a socket,
   * the clock is read again.
   */
  isInTime(answer: LocalEntry, scope: RegisteredScope): boolean {
    const watch = answer.watch!;
    if (this.#answersLeft > 0 && this.#watch === watch) this.#answersLeft--;
    else this.#readClock(watch, scope.partition);
    return watch.wasLive && answer.untilTick > this.#tick;
  }

  #readClock(watch: Watch, partition: number): void {
    const isRun = this.#watch !== undefined;
    this.#watch = watch;
    if (isRun && this.options.isOwnClock) this.#answersLeft = ANSWERS_OF_A_READING;
    else void RESOLVED.then(this.#endRun);
    watch.isLive();
    this.#tick = Math.ceil(this.tickOf(this.latestMs(partition, watch.decidedAtMs)));
  }

  readonly #endRun = (): void => {
    this.#watch = undefined;
    this.#answersLeft = 0;
  };

  /** Whether no bump by this process is missing, and its number of partitions is registered. */
  get isUnhindered(): boolean {
    return this.#unbumped.size === 0 && (this.#registration === undefined || this.#registration.stands);
  }

  /** The instant of the store's clock in small numbers, which V8 keeps in place: a TTL of a year is within them. */
  tickOf(storeMs: number): number {
    return Math.max(-TICKS_MAX, Math.min(TICKS_MAX, (storeMs - this.#startedAtMs) / TICK_MS));
  }

  /** The latest that the store's clock can be. `wallMs`: the present ms of the wall clock. */
  latestMs(partition: number, wallMs: number): number {
    const { clock, isOwnClock, storeClocks } = this.options;
    if (!isOwnClock) return storeClocks[partition]!.latestAt(clock.nowMs());
    const latest = this.#latest[partition]!;
    if (latest.wallMs !== wallMs) {
      latest.wallMs = wallMs;
      // To the end of the ms.
      latest.storeMs = storeClocks[partition]!.latestAt(clock.nowMs()) + 1;
    }
    return latest.storeMs;
  }
}

const ANSWERS_OF_A_READING = 15;
const TICK_MS = 64;
const TICKS_MAX = 2 ** 30;
const RESOLVED = Promise.resolve();

export class LocalReader {
  readonly #definition: EntryDefinition;
  readonly #reads: LocalReads;
  readonly #tier: LocalTier;
  readonly #isPlain: boolean;
  /** Whether a hit may have to be compared with the source, or loaded anew. */
  readonly #isFollowed: boolean;
  #hits = 0;
  #absentHits = 0;
  /** Hits that saved no query of their own, as further ones of a batch. */
  #together = 0;

  constructor(definition: EntryDefinition, reads: LocalReads) {
    this.#definition = definition;
    this.#reads = reads;
    this.#tier = reads.options.tier;
    this.#isPlain = definition.isPlain;
    this.#isFollowed = reads.options.verifier !== undefined || definition.earlyRefresh > 0;
  }

  /** Returns the value of `ids`, ABSENT for an absent row, undefined if the store must be asked. */
  peek(ids: AnyIds): unknown {
    const entry = this.#find(ids);
    if (entry === undefined) return undefined;
    const value = entry.shared ?? entry.give();
    if (value === undefined) return undefined;
    if (value === ABSENT) this.#absentHits++;
    else this.#hits++;
    return value;
  }

  /** As `peek`, with all that a hit of the store brings about. */
  fetch(ids: AnyIds, attributes: Attributes | undefined): unknown {
    if (!this.#isFollowed && !this.#isHeard(attributes)) return this.peek(ids);
    return this.fetchMany([ids], attributes)?.[0];
  }

  /** Returns the values of `ids: [n] -> [n]`; undefined if the store must be asked for one of them. Duplicates share a value. */
  fetchMany(ids: readonly AnyIds[], attributes: Attributes | undefined): unknown[] | undefined {
    const startedAtMs = monotonicMs();
    const found = new Map<LocalEntry, { readonly ids: AnyIds; readonly value: unknown }>();
    const values: unknown[] = [];
    for (const own of ids) {
      const entry = this.#find(own);
      if (entry === undefined) return undefined;
      let given = found.get(entry);
      if (given === undefined) found.set(entry, (given = { ids: own, value: entry.give() }));
      values.push(given.value);
    }
    let hits = 0;
    for (const [entry, { ids: own, value }] of found) {
      if (value !== ABSENT) hits++;
      if (this.#isFollowed) this.#follow(own, entry, value, attributes);
    }
    this.#count(hits, found.size - hits, startedAtMs, attributes);
    return values;
  }

  /** Returns the hits since the last call that were not emitted. */
  takeHits(): CheapHits {
    const { cache, namespace, name: entry } = this.#definition;
    const taken = { cache, namespace, entry, hits: this.#hits, absentHits: this.#absentHits };
    const queriesAvoided = this.#hits + this.#absentHits - this.#together;
    this.#hits = this.#absentHits = this.#together = 0;
    return { ...taken, queriesAvoided };
  }

  #find(ids: AnyIds): LocalEntry | undefined {
    const { registration, unbumped } = this.#reads.options;
    let scope: RegisteredScope | undefined;
    let scopes: readonly RegisteredScope[];
    let entryPath = this.#definition.name;
    if (this.#isPlain) {
      scope = this.#definition.find(ids);
      if (scope === undefined) return this.#unverified('not_held');
      const answer = scope.answer as LocalEntry | undefined;
      if (answer !== undefined && this.#stands(answer, scope)) return answer;
      scopes = scope.lineage;
    } else ({ scope, scopes, entryPath } = this.#definition.address(ids));
    const last = scope.lastLocation;
    const location = last !== undefined && last.entryPath === entryPath ? last : this.#locate(scope, scopes, entryPath);
    if (location === undefined || !isVerified(scopes, location.generations)) {
      return this.#unverified(location !== undefined && stand(scopes, location.generations) ? 'heartbeat' : 'changed');
    }
    if (unbumped.size > 0 && unbumped.includes(scopes)) return this.#unverified('unbumped');
    if (registration !== undefined && !registration.stands) return this.#unverified('unregistered');
    const entry = this.#tier.at(location);
    if (entry === undefined) return this.#unverified('not_held');
    const { watch } = scope.tracked!;
    if (entry.freshUntilMs <= this.#reads.latestMs(scope.partition, watch.decidedAtMs))
      return this.#unverified('expired');
    if (this.#isPlain) {
      scope.answer = entry;
      entry.scope = scope;
      entry.definition = this.#definition;
      entry.watch = watch;
      entry.untilTick = Math.floor(this.#reads.tickOf(entry.freshUntilMs));
      entry.verifiedAt = this.#reads.steps.now;
    }
    return entry;
  }

  /**
   * Whether an earlier answer is one now too: no step since then, so no generation has become unverified, and the tier has not
   * dropped it. All scopes of a plain entry lie in one partition, and so have one watch.
   */
  #stands(answer: LocalEntry, scope: RegisteredScope): boolean {
    const reads = this.#reads;
    return (
      answer.verifiedAt === reads.steps.now &&
      answer.definition === this.#definition &&
      answer.usedAt === this.#tier.entered &&
      reads.isUnhindered &&
      reads.isInTime(answer, scope)
    );
  }

  /** Of an entry that is not the one of its scope that was read last. */
  #locate(scope: RegisteredScope, scopes: readonly RegisteredScope[], entryPath: string): EntryLocation | undefined {
    const generations: Generation[] = [];
    for (const { tracked } of scopes) {
      if (tracked?.verified === undefined) return undefined;
      generations.push(tracked.verified);
    }
    return (scope.lastLocation = this.#reads.options.lookup.locationOf({ scope, entryPath }, generations));
  }

  #unverified(reason: UnverifiedReason): undefined {
    this.#reads.unverified[reason]++;
  }

  #isHeard(attributes: Attributes | undefined): boolean {
    return attributes !== undefined || this.#reads.options.telemetry.listeners('read') > this.#reads.ownListeners;
  }

  #count(hits: number, absentHits: number, startedAtMs: number, attributes: Attributes | undefined): void {
    const { cache, namespace, name: entry, loadBatchMax } = this.#definition;
    const queriesAvoided = Math.ceil((hits + absentHits) / loadBatchMax);
    if (!this.#isHeard(attributes)) {
      this.#hits += hits;
      this.#absentHits += absentHits;
      this.#together += hits + absentHits - queriesAvoided;
      return;
    }
    const localHits = hits + absentHits;
    this.#reads.options.telemetry.emit('read', {
      ...{ cache, namespace, entry, attributes, hits, absentHits, localHits, trackedHits: localHits },
      ...{ staleHits: 0, misses: 0, missed: [], bypasses: 0, bypassReasons: {}, queriesAvoided },
      durationMs: monotonicMs() - startedAtMs,
    });
  }

  /** Has a hit compared with the source, or loaded anew, as it falls out. */
  #follow(ids: AnyIds, entry: LocalEntry, value: unknown, attributes: Attributes | undefined): void {
    const { verifier, clock, refresh } = this.#reads.options;
    const address = this.#definition.address(ids);
    const location = entry.location!;
    const nowMs = clock.nowMs();
    const freshForMs =
      entry.life.freshUntilMs - this.#reads.options.storeClocks[address.scope.partition]!.latestAt(nowMs);
    const isDue = ageOf(this.#definition, entry.life, freshForMs) === 'due';
    const hit = new LocalHit(location, nowMs, value, entry, isDue);
    verifier?.consider(address, hit, attributes);
    if (!isDue) return;
    this.#tier.drop(entry.key);
    refresh(missOf(address, hit));
  }
}

/** Whether these generations would be verified if a beat had come in time. */
function stand(scopes: readonly RegisteredScope[], generations: readonly Generation[]): boolean {
  return scopes.every(({ tracked }, i) => tracked !== undefined && tracked.verified === generations[i]);
}
