import { Breaker } from './read/breaker.js';
import { Breakers } from './read/breakers.js';
import { Bumper } from './write/bumper.js';
import type { Clock } from './ports/clock.js';
import type { EntryDefinition } from './model/entry-definition.js';
import { withDeadline } from './async/deadline.js';
import { inNoContext, inThisContext } from './async/no-context.js';
import { monotonicMs, setImmediate } from './async/scheduling.js';
import { endsWithin } from './async/ends-within.js';
import { ClosedError } from './errors/errors.js';
import { Filler } from './read/filler.js';
import { Freshness } from './read/freshness.js';
import { logTo } from './telemetry/log.js';
import { LoadCap } from './read/load-cap.js';
import { Leases } from './read/leases.js';
import { Loads } from './read/loads.js';
import { LayoutRegistration } from './read/layout-registration.js';
import { LocalReader, LocalReads } from './read/local-reader.js';
import { LocalTier } from './read/local-tier.js';
import { OutageAnswers } from './read/outage-answers.js';
import { Lookup } from './read/lookup.js';
import { Lookups } from './read/lookups.js';
import type { CheckedOptions } from './options.js';
import type { CallLabels } from './read/call.js';
import { Reader } from './read/reader.js';
import { SafeLookup } from './read/safe-lookup.js';
import { Sightings } from './read/sightings.js';
import { SplitStore } from './read/split-store.js';
import { NamespaceNode } from './model/namespace-node.js';
import { Publisher } from './publisher.js';
import { ScopeRegistry } from './model/scope-registry.js';
import type { Source } from './ports/source.js';
import { StoreClock } from './read/store-clock.js';
import { type LocalCounts, StateTracker } from './telemetry/state.js';
import { Statistics } from './telemetry/statistics.js';
import { type Partition, Partitions } from './ports/partitions.js';
import type { PartitionedStore, Store, StoreLifecycle, StoreSignal } from './ports/store.js';
import { Emitter } from './telemetry/emitter.js';
import { guarded } from './telemetry/guarded.js';
import { generationTtl } from './model/ttl.js';
import { emitBumps } from './write/bump-target.js';
import { bumpPaths } from './write/bump-paths.js';
import { foreignDeleted } from './write/bump-scopes.js';
import { presentPartitions } from './write/present-partitions.js';
import { UnbumpedScopes } from './write/unbumped-scopes.js';
import { Trackers } from './read/trackers.js';
import { UnkeptBound } from './read/unkept-bound.js';
import { Verifier } from './read/verifier.js';
import { InFlight } from './async/in-flight.js';

/** How old the store's time may be that a local tier goes by, in ms: two clocks drift apart by some ms a minute. */
const STORE_CLOCK_RENEW_MS = 60_000;
/** How long a beat of the store counts, in ms. */
const HEARTBEAT_MS = 1_000;
/** What a local tier does that can't track generations. */
const IN_PLACE = "Reads verify values of the local tier by one command each, as with mode 'verify'.";
/** Shortest time between two equal warnings about failed loads, in ms. */
const WARN_EVERY_MS = 60_000;

interface EngineOptions {
  readonly options: CheckedOptions;
  readonly store: Store | PartitionedStore;
  readonly source: Source<object, unknown>;
  readonly clock: Clock;
  /** Whether `clock` is one of this process. */
  readonly isOwnClock: boolean;
}

/** The parts of one cache, wired together; its namespaces and entries share them. */
export class Engine {
  readonly options: CheckedOptions;
  readonly partitions: Partitions;
  readonly present: () => Promise<Partitions>;
  readonly source: Source<object, unknown>;
  readonly scopes: ScopeRegistry;
  /** The namespace `global`. */
  readonly root: NamespaceNode;
  readonly telemetry = new Emitter();
  readonly statistics = new Statistics(this.telemetry);
  readonly lookup: Lookups;
  readonly filler: Filler;
  readonly loads: Loads;
  readonly unbumped: UnbumpedScopes;
  readonly reader: Reader;
  readonly bumper: Bumper;
  readonly stateTracker: StateTracker;
  readonly #store: StoreLifecycle;
  readonly #breakers: readonly Breakers[];
  readonly verifier: Verifier | undefined;
  /** undefined for a cache without a local tier. */
  readonly local: LocalTier | undefined;
  readonly #trackers: Trackers | undefined;
  readonly #localReads: LocalReads | undefined;
  /** Bumps, lookups, explicit fills and deletes under way. */
  readonly inFlight = new InFlight();
  /** In the order of their declaration. */
  readonly entries: EntryDefinition[] = [];
  readonly #publisher: Publisher | undefined;
  #longestTtlMs: number;
  #hasWarnedOfOwnAnswers = false;
  #closing: Promise<void> | undefined;

  constructor({ options, store, source, clock, isOwnClock }: EngineOptions) {
    const { name, schemaVersion, maxStalenessMs } = options;
    const partitions = new Partitions(store, name);
    const { telemetry } = this;
    this.options = options;
    this.#store = store;
    this.partitions = partitions;
    this.present = presentPartitions({ partitions, store, source, cache: name });
    this.source = source;
    this.#longestTtlMs = options.ttlMs;
    const prefixes = partitions.list.map(({ prefix }) => prefix);
    this.scopes = new ScopeRegistry(prefixes, options.rememberedScopesMax);
    this.root = NamespaceNode.root(this.scopes);
    const freshness = maxStalenessMs === undefined ? undefined : this.#freshness(maxStalenessMs);
    const breakers = (operation: 'read' | 'fill') => {
      const changed = ofAny((isOpen, error: Error | undefined) =>
        telemetry.emit('breakerChanged', { cache: name, operation, isOpen, error }),
      );
      const stores = partitions.list.map(({ store: one }) => one);
      return new Breakers(stores, () => new Breaker({ clock, limits: options, changed: changed() }));
    };
    const readBreakers = breakers('read');
    const fillBreakers = breakers('fill');
    const local = options.local && new LocalTier({ cache: name, telemetry, limits: options.local });
    this.local = local;
    const filled = partitions.list.map((partition, i) => ({
      store: partition.store,
      storeClock: new StoreClock(partition.store, clock, options.local && STORE_CLOCK_RENEW_MS),
      get breaker() {
        return fillBreakers.of(i);
      },
    }));
    const trackers = this.#track(freshness, clock, (partition) => filled[partition]!.storeClock);
    this.#trackers = trackers;
    const graceMs = options.local?.staleOnOutageMs ?? 0;
    const sightings =
      graceMs === 0
        ? undefined
        : new Sightings({
            ...{ partitions: partitions.list, trackers, freshness, boundMs: maxStalenessMs, clock },
            deadlineMs: options.readDeadlineMs,
            track: (request) => this.inFlight.track(request),
          });
    const lookups = partitions.list.map(({ index, prefix, store: own }) => {
      const { storeClock } = filled[index]!;
      const parts = {
        prefix,
        schemaVersion,
        telemetry,
        clock,
        storeClock,
        freshness: freshness?.[index],
        local,
        tracking: sightings ?? trackers,
      };
      const split = new SplitStore(partitions, index, freshness, readBreakers, clock);
      return { own: new Lookup({ store: own, ...parts }), split: new Lookup({ store: split, ...parts }) };
    });
    const lookup = new Lookups(lookups);
    const filler = new Filler({ partitions: filled, telemetry, clock, options, local });
    const cap = new LoadCap(options);
    const verifier =
      options.verifyRate > 0 ? new Verifier({ partitions, lookup, cap, source, telemetry, options, local }) : undefined;
    const unreachable = 'partition' in store ? () => store.unreachable : undefined;
    this.stateTracker = new StateTracker(telemetry, maxStalenessMs !== undefined, unreachable);
    this.#breakers = [readBreakers, fillBreakers];
    this.lookup = lookup;
    this.filler = filler;
    this.verifier = verifier;
    const work = new InFlight();
    const leases = new Leases({ partitions: filled, telemetry, options, work });
    const unbumped = new UnbumpedScopes({ bump: this.#bumpAgain, retryMs: options.breakerRetryMs });
    this.unbumped = unbumped;
    const registration = this.#registration(store);
    const safeLookup = new SafeLookup({
      ...{ lookup, breakers: readBreakers, bypassed: partitions.bypassed, unbumped, telemetry },
      registration,
      readDeadlineMs: options.readDeadlineMs,
    });
    const loads = new Loads({ source, cap, lookup: safeLookup, leases, filler, telemetry, clock, work });
    this.loads = loads;
    const storeClocks = filled.map(({ storeClock }) => storeClock);
    const outage =
      sightings && new OutageAnswers({ graceMs, tier: local!, sightings, lookup, unbumped, clock, storeClocks });
    this.reader = new Reader({ lookup: safeLookup, loads, verifier, outage, telemetry, work });
    const ttlMs = () => generationTtl(this.#longestTtlMs);
    this.bumper = new Bumper({
      partitions,
      present: partitions.isPartitioned ? this.present : undefined,
      telemetry,
      cache: name,
      bumpDeadlineMs: options.bumpDeadlineMs,
      ttlMs,
      unbumped,
    });
    if (options.log) logTo(options.log, telemetry);
    if (trackers !== undefined) {
      this.#localReads = new LocalReads({
        ...{ tier: local!, lookup, clock, isOwnClock, unbumped, registration, verifier, telemetry },
        steps: trackers.steps,
        storeClocks,
        refresh: (missed) => loads.refresh(missed),
      });
    }
    if (source.explain !== undefined) this.#explainLoads(source.explain);
    if (source.publish !== undefined)
      this.#publisher = new Publisher({
        ...{ source, options, clock, telemetry },
        ...{ root: this.root, inFlight: this.inFlight },
      });
    store.listen?.((signal) => inNoContext(this.#signalled, signal));
  }

  /** Has the store tell which generations change. undefined unless the cache asks for it, and for a store that can't. */
  #track(
    freshness: readonly Freshness[] | undefined,
    clock: Clock,
    storeClockOf: (partition: number) => StoreClock,
  ): Trackers | undefined {
    const { name: cache, local, readDeadlineMs, maxStalenessMs: boundMs } = this.options;
    if (local?.mode !== 'track') return undefined;
    const warn = (message: string) => this.telemetry.emit('warning', { cache, message: `${message} ${IN_PLACE}` });
    const { list, bypassed } = this.partitions;
    if (bypassed || list.some(({ store }) => store.track === undefined)) {
      // The cache's owner adds listeners right after this constructor.
      inNoContext(() => setImmediate(() => warn('The store tells no changes of generations.')));
      return undefined;
    }
    return new Trackers({
      ...{ partitions: list, heartbeatMs: local.heartbeatMs ?? HEARTBEAT_MS, boundMs, freshness, clock },
      refused: ({ message }) => warn(`The store does not tell changes of generations: ${message}`),
      // Reads that ask the store for nothing do not renew its time.
      onBeat: (partition) => {
        const storeClock = storeClockOf(partition);
        if (!storeClock.isDue(clock.nowMs())) return;
        withDeadline('time', readDeadlineMs, (deadline) => storeClock.known(deadline)).catch(() => {});
      },
    });
  }

  /** Says once that readers which answer by themselves may answer what a strict commit made old (docs/protocol.md, rule 12). */
  warnOfOwnAnswers(): void {
    const { name: cache, local } = this.options;
    const { heartbeatMs = HEARTBEAT_MS, staleOnOutageMs = 0 } = local ?? {};
    const reasons: { has: string; time: string; remedy: string }[] = [];
    if (this.#trackers !== undefined) {
      reasons.push({ has: "mode: 'track'", time: `for ${heartbeatMs} ms at most`, remedy: "set mode: 'verify'" });
    }
    if (staleOnOutageMs > 0) {
      const time = `for ${staleOnOutageMs} ms at most while they can't reach the store`;
      reasons.push({ has: `staleOnOutageMs: ${staleOnOutageMs}`, time, remedy: 'leave staleOnOutageMs out' });
    }
    if (reasons.length === 0 || this.#hasWarnedOfOwnAnswers) return;
    this.#hasWarnedOfOwnAnswers = true;
    const all = (part: keyof (typeof reasons)[0], by: string) => reasons.map((reason) => reason[part]).join(by);
    const message =
      `A strict commit wants readers that ask the store, but this cache has local: { ${all('has', ', ')} }. Other processes with ` +
      `it may answer the old value after the commit, ${all('time', ', and ')}. ` +
      `In processes that read what strict commits change, ${all('remedy', ' and ')}.`;
    this.telemetry.emit('warning', { cache, message });
  }

  /** Returns what answers reads of an entry from this process alone; undefined unless the cache tracks generations. */
  localReader(definition: EntryDefinition): LocalReader | undefined {
    if (this.#localReads === undefined) return undefined;
    const reader = new LocalReader(definition, this.#localReads);
    this.statistics.collect(() => reader.takeHits());
    return reader;
  }

  /** What the local tier holds, and what it knows; undefined for a cache without one. */
  get localCounts(): LocalCounts | undefined {
    if (this.local === undefined || this.#localReads === undefined) return this.local?.size;
    const { unverified } = this.#localReads;
    return { ...this.local.size, tracking: { ...this.#trackers!.state, unverified: { ...unverified } } };
  }

  /** Emits the source's warning about a failed load, each warning once a minute at most. */
  #explainLoads(explain: NonNullable<Source<object, unknown>['explain']>): void {
    const toldAtMs = new Map<string, number>();
    this.telemetry.on('load', ({ cache, error }) => {
      const message = error === undefined ? undefined : explain(error);
      const nowMs = monotonicMs();
      if (message === undefined || nowMs - (toldAtMs.get(message) ?? -Infinity) < WARN_EVERY_MS) return;
      toldAtMs.set(message, nowMs);
      this.telemetry.emit('warning', { cache, message });
    });
  }

  /** Registers the number of partitions, where another process may have another one. */
  #registration(store: Store | PartitionedStore): LayoutRegistration | undefined {
    const { layouts } = this.source;
    if (!('partitions' in store) || layouts === undefined) return undefined;
    const { name: cache, bumpDeadlineMs: deadlineMs } = this.options;
    const { partitions } = this;
    const bumpAll = () => bumpPaths({ partitions, cache, paths: [''], deadlineMs, onForeign: this.#foreign });
    return new LayoutRegistration({
      register: () => layouts.register(cache, store.partitions, bumpAll),
      warn: (message) => this.telemetry.emit('warning', { cache, message }),
      track: (work) => this.inFlight.track(work),
    });
  }

  /** The freshness of each partition. */
  #freshness(boundMs: number): Freshness[] {
    const { telemetry } = this;
    const { name: cache, readDeadlineMs: deadlineMs } = this.options;
    const changed = ofAny((isStale) =>
      telemetry.emit('freshnessChanged', { cache, maxStalenessMs: boundMs, isFresh: !isStale }),
    );
    return this.partitions.list.map(({ store, prefix }: Partition) => {
      const tell = changed();
      return new Freshness({
        ...{ store, prefix, boundMs },
        changed: (isFresh) => tell(!isFresh, undefined),
        unkept: new UnkeptBound({
          ...{ store, cache, prefix, boundMs, deadlineMs },
          track: (request) => this.inFlight.track(request),
          warn: (message) => telemetry.emit('warning', { cache, message }),
        }),
      });
    });
  }

  /** Bumps scopes whose bump failed. */
  readonly #bumpAgain = async (paths: readonly string[]): Promise<void> => {
    const { telemetry } = this;
    const { name: cache, bumpDeadlineMs: deadlineMs } = this.options;
    const startedAtMs = monotonicMs();
    const emit = (error?: unknown) =>
      emitBumps(telemetry, paths, {
        ...{ cache, origin: 'retry', cause: 'retry', attributes: undefined, error },
        durationMs: monotonicMs() - startedAtMs,
      });
    try {
      await bumpPaths({ partitions: await this.present(), cache, paths, deadlineMs, onForeign: this.#foreign });
    } catch (error) {
      emit(error);
      throw error;
    }
    emit();
  };

  readonly #foreign = (paths: readonly string[]): void =>
    this.telemetry.emit('warning', { cache: this.options.name, message: foreignDeleted(paths) });

  readonly #signalled = (signal: StoreSignal): void => {
    const { telemetry } = this;
    const cache = this.options.name;
    if (signal.kind === 'warning') telemetry.emit('warning', { cache, message: signal.message });
    else if (signal.kind === 'down') {
      telemetry.emit('storeFailure', { cache, operation: 'connection', error: signal.error });
    } else {
      for (const breakers of this.#breakers) breakers.retryNow();
      this.unbumped.retryNow();
      if (signal.kind === 'up') telemetry.emit('storeUp', { cache });
    }
  };

  /** Returns this engine. Throws ClosedError after `close()`. */
  opened(): this {
    if (this.#closing) throw new ClosedError(this.options.name);
    return this;
  }

  /** Adds the longest time that an entry is stored: generations must outlive the entries they guard, so a bump needs the longest TTL. */
  declareTtl(ttlMs: number): void {
    this.#longestTtlMs = Math.max(this.#longestTtlMs, ttlMs);
  }

  /** Returns the labels of a call: its attributes, and with `logStacks` its stack. */
  readonly labels = (
    options: Partial<Pick<CallLabels, 'attributes' | 'onStale'>> | undefined,
    caller: (...args: never) => unknown,
  ): CallLabels => ({
    attributes: options?.attributes,
    onStale: options?.onStale && inThisContext(guarded('onStale', options.onStale)),
    stack: this.stack(caller),
  });

  /** Returns the stack above `caller`, if the cache has `logStacks`. */
  stack(caller: (...args: never) => unknown): string | undefined {
    if (!this.options.logStacks) return undefined;
    const holder: { stack?: string } = {};
    Error.captureStackTrace(holder, caller);
    return holder.stack?.split('\n').slice(1).join('\n');
  }

  /**
   * Waits for calls, bumps, fills and verifications under way, for `closeDeadlineMs` at most; then ends the store's own
   * connections. Idempotent.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #ended(): Promise<void> {
    await this.inFlight.idle();
    await this.reader.settled();
    await this.verifier?.close();
  }

  async #close(): Promise<void> {
    this.#publisher?.close();
    const ended = this.#ended();
    if (await endsWithin(this.options.closeDeadlineMs, ended)) await ended;
    this.loads.close(new ClosedError(this.options.name));
    this.unbumped.close();
    this.#trackers?.close();
    this.local?.close();
    await this.#store.close();
  }
}

/**
 * Tells when the first of several parts leaves its usual state, and when the last one is back. Returns a function that makes
 * the listener of one part.
 */
function ofAny<Cause>(changed: (isAny: boolean, cause: Cause) => void): () => (isOut: boolean, cause: Cause) => void {
  let out = 0;
  return () => (isOut, cause) => {
    out += isOut ? 1 : -1;
    if (out === (isOut ? 1 : 0)) changed(isOut, cause);
  };
}
