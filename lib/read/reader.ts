/**
 * Answers calls: looks up the entries of one turn together, loads the misses, returns their values, and fills after the
 * answer. `load-queue.ts` has the rules for calls that share a load.
 *
 * Each call settles as soon as it has all its values: a hit never waits for another call's load, and no call is rejected
 * for the ids of another (`load-apart.ts`). Calls that share an
 * entry get values of their own; a call that names an entry twice gets one value for both.
 */
import { monotonicMs, setImmediate } from '../async/scheduling.js';
import { BatchSlot } from './batch-slot.js';
import type { Breaker } from './breaker.js';
import { Call, type CallLabels } from './call.js';
import { Deadline } from '../async/deadline.js';
import type { Address, EntryDefinition } from '../model/entry-definition.js';
import { seal } from '../codec/envelope.js';
import { endsWithin } from '../async/ends-within.js';
import { type GencacheError, LoadTimeoutError } from '../errors/errors.js';
import type { Attributes } from '../telemetry/events.js';
import { Filler, type Sealed } from './filler.js';
import { type FailedLoad, loadApart } from './load-apart.js';
import { load } from './loader.js';
import type { LookupResult, Lookup } from './lookup.js';
import { lookupChunks } from './lookup-chunks.js';
import type { BegunLoad, LoadCap } from './load-cap.js';
import { LoadQueue } from './load-queue.js';
import type { Clock } from '../ports/clock.js';
import type { Source } from '../ports/source.js';
import type { Store } from '../ports/store.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { LoadCounts } from '../telemetry/state.js';
import { MicrotaskBatch } from '../async/microtask-batch.js';
import { Vector } from '../model/vector.js';
import type { Verifier } from './verifier.js';
import { InFlight } from '../async/in-flight.js';

interface ReaderOptions {
  readonly store: Store;
  readonly source: Source<object, unknown>;
  readonly lookup: Lookup;
  readonly breaker: Breaker;
  readonly cap: LoadCap;
  readonly filler: Filler;
  readonly verifier: Verifier | undefined;
  readonly telemetry: Emitter;
  readonly clock: Clock;
  readonly options: ReadLimits;
}

interface ReadLimits {
  readonly readDeadlineMs: number;
}

export class Reader {
  readonly #store: Store;
  readonly #source: Source<object, unknown>;
  readonly #lookup: Lookup;
  readonly #breaker: Breaker;
  readonly #filler: Filler;
  readonly #verifier: Verifier | undefined;
  readonly #telemetry: Emitter;
  readonly #clock: Clock;
  readonly #options: ReadLimits;
  readonly #turn = new MicrotaskBatch<Call>((calls) => this.#work.track(this.#read(calls)));
  readonly #cap: LoadCap;
  readonly #queue: LoadQueue;
  #overdue = 0;
  /** Reads, loads and fills under way, for `settled`. */
  readonly #work = new InFlight();

  constructor({ store, source, lookup, breaker, cap, filler, verifier, telemetry, clock, options }: ReaderOptions) {
    this.#store = store;
    this.#source = source;
    this.#lookup = lookup;
    this.#breaker = breaker;
    this.#filler = filler;
    this.#verifier = verifier;
    this.#telemetry = telemetry;
    this.#clock = clock;
    this.#options = options;
    this.#cap = cap;
    this.#queue = new LoadQueue({
      cap,
      start: (definition, slots) => this.#start(definition, slots),
      refuse: (slot, limit) => this.#fail([slot], cap.overload(slot.address.definition, limit)),
    });
  }

  /** Returns the values of `addresses: [n] -> [n]`, same order; duplicates are read once. ABSENT where there is no row. */
  fetch(definition: EntryDefinition, addresses: readonly Address[], labels: CallLabels): Promise<unknown[]> {
    if (addresses.length === 0) return Promise.resolve([]);
    const call = this.#call(definition, addresses, labels);
    this.#turn.add(call);
    return call.answer;
  }

  /** Returns the values of `addresses`, loaded on the caller's transaction: one query, without the cache, never shared. */
  fetchWithin(
    trx: unknown,
    definition: EntryDefinition,
    addresses: readonly Address[],
    labels: CallLabels,
  ): Promise<unknown[]> {
    if (addresses.length === 0) return Promise.resolve([]);
    const call = this.#call(definition, addresses, labels);
    const slots = BatchSlot.of([call]);
    for (const { address } of slots) call.count(address, WITHIN);
    call.loads = slots.length;
    this.#work.track(this.#loadWithin(trx, definition, slots));
    return call.answer;
  }

  /** Looks up without loading. */
  async lookup(address: Address, labels: CallLabels): Promise<LookupResult> {
    const call = this.#call(address.definition, [address], labels);
    const [looked] = await this.#lookUp([address]);
    call.count(address, looked!);
    this.#report(call);
    return looked!;
  }

  get loads(): LoadCounts {
    return { running: this.#cap.running, overdue: this.#overdue, waiting: this.#queue.waiting };
  }

  /** Resolves when no read, load or fill is under way. */
  settled(): Promise<void> {
    return this.#work.drained(this.#turn);
  }

  /** Ends the timer of the queue. */
  close(): void {
    this.#queue.close();
  }

  #call(definition: EntryDefinition, addresses: readonly Address[], labels: CallLabels): Call {
    return new Call({ definition, addresses, labels, onSettled: this.#report });
  }

  async #read(calls: readonly Call[]): Promise<void> {
    const slots = BatchSlot.of(calls);
    let missed: Map<EntryDefinition, BatchSlot[]> | undefined;
    try {
      let unreached: LookupResult | undefined;
      for (const chunk of lookupChunks(slots)) {
        const addresses = chunk.map((slot) => slot.address);
        // After one missed deadline the other chunks skip the store, so that the call waits for one deadline only.
        const skipped = unreached;
        const looked = skipped ? addresses.map(() => skipped) : await this.#lookUp(addresses);
        if (looked[0] === UNREACHED || looked[0] === BREAKER_OPEN) unreached = looked[0];
        for (let i = 0; i < chunk.length; i++) {
          const slot = chunk[i]!;
          if (!this.#answer(slot, looked[i]!)) list((missed ??= new Map<EntryDefinition, BatchSlot[]>()), slot);
        }
      }
    } catch (error) {
      // No step above should throw; an unexpected error must not leave the calls pending.
      return this.#fail(slots, error);
    }
    if (missed === undefined) return;
    await Promise.all([...missed].map(([definition, group]) => this.#loadAll(definition, group)));
  }

  /** Looks up a chunk under one deadline for all its commands. A failing store makes every entry a bypass. */
  async #lookUp(addresses: readonly Address[]): Promise<readonly LookupResult[]> {
    if (this.#store.bypassed) return addresses.map(() => BYPASS_STORE);
    if (!this.#breaker.admits()) {
      // A caller that reads again without a pause lets the event loop go on, and the connection come back.
      await new Promise(setImmediate);
      return addresses.map(() => BREAKER_OPEN);
    }
    const deadline = new Deadline('read', this.#options.readDeadlineMs);
    try {
      const looked = await this.#lookup.read(addresses, deadline);
      this.#breaker.succeeded();
      return looked;
    } catch (error) {
      const { cache } = addresses[0]!.definition;
      this.#telemetry.emit('storeFailure', { cache, operation: 'read', error: error as GencacheError });
      this.#breaker.failed(error as GencacheError);
      return addresses.map(() => UNREACHED);
    } finally {
      deadline.clear();
    }
  }

  /** Answers a slot, or joins it to a load under way. Returns false if the slot needs a load. */
  #answer(slot: BatchSlot, looked: LookupResult): boolean {
    slot.count(looked);
    if (looked.outcome === 'hit' || looked.outcome === 'absent') {
      this.#verifier?.consider(slot.address, looked, slot.owner.attributes);
      slot.give({ value: looked.value, bytes: looked.bytes, key: looked.location.key });
      return true;
    }
    if (looked.outcome === 'miss') {
      slot.vector = looked.vector;
      return this.#queue.join(slot);
    }
    return false;
  }

  /** Loads slots with one query for each `loadBatchMax` of them, one after another; values beside each other. */
  async #loadAll(definition: EntryDefinition, slots: readonly BatchSlot[]): Promise<void> {
    const chunks = definition.shape === 'value' ? [slots] : loadBatches(definition, slots);
    for (const chunk of chunks) {
      const answered = BatchSlot.answered(chunk);
      this.#queue.add(definition, chunk);
      await answered;
    }
  }

  /** Loads slots on the caller's transaction: never queued, since it has its connection, and never shared. */
  async #loadWithin(trx: unknown, definition: EntryDefinition, slots: readonly BatchSlot[]): Promise<void> {
    for (const chunk of loadBatches(definition, slots)) {
      const failed = await this.#begin(definition, chunk, trx).answer;
      if (failed) this.#fail(failed.slots, failed.error);
    }
  }

  /** Loads slots, and loads them apart if that fails. Resolves when the first loader has settled. */
  #start(definition: EntryDefinition, slots: readonly BatchSlot[]): Promise<unknown> {
    const { answer, settled } = this.#begin(definition, slots);
    this.#work.track(answer.then((failed) => failed && this.#loadApart(definition, failed)));
    return settled;
  }

  #loadApart(definition: EntryDefinition, failed: FailedLoad): Promise<void> {
    return loadApart({
      ...{ clock: this.#clock, failed },
      load: async (slots) => {
        try {
          return await this.#cap.run(definition, () => this.#begin(definition, slots));
        } catch {
          // No room in time: the callers get the error of their own load.
          return { slots, error: failed.error };
        }
      },
      fail: ({ slots, error }) => this.#fail(slots, error),
    });
  }

  /**
   * Calls the loader for slots, and answers them when it has settled. The answer resolves to the load if the loader failed:
   * its slots are unanswered then. Never rejects.
   */
  #begin(definition: EntryDefinition, slots: readonly BatchSlot[], trx?: unknown): BegunLoad<FailedLoad | undefined> {
    const attributes = commonAttributes(slots);
    const stop = new AbortController();
    const loading = load({
      definition,
      addresses: slots.map((slot) => slot.address),
      context: () => ({ ...this.#context(definition, trx, stop.signal), signal: stop.signal }),
      telemetry: this.#telemetry,
      purpose: 'read',
      attributes,
    });
    const finished = loading.then(
      async (values) => {
        try {
          await this.#settle(slots, values, attributes);
        } catch (error) {
          // No step above should throw; an unexpected error must not leave the calls pending.
          this.#fail(slots, error);
        }
        return undefined;
      },
      (error: unknown) => ({ slots, error }),
    );
    const settled = loading.then(
      () => {},
      () => {},
    );
    const { loadHardTimeoutMs } = definition;
    if (loadHardTimeoutMs === 0) return { answer: finished, settled };
    return { answer: this.#within(definition, slots, finished, stop), settled };
  }

  #context({ loadHardTimeoutMs }: EntryDefinition, trx: unknown, signal: AbortSignal): object {
    // A cancelled query would take the caller's transaction with it.
    const cancellable = trx === undefined && loadHardTimeoutMs > 0 && this.#source.cancellable?.(signal);
    return cancellable || this.#source.context(trx);
  }

  /** Rejects the callers of a load that takes longer than its hard timeout. Its values are stored when they come. */
  async #within(
    definition: EntryDefinition,
    slots: readonly BatchSlot[],
    finished: Promise<FailedLoad | undefined>,
    stop: AbortController,
  ): Promise<FailedLoad | undefined> {
    const { name, loadHardTimeoutMs } = definition;
    if (await endsWithin(loadHardTimeoutMs, finished)) return finished;
    const error = new LoadTimeoutError(name, loadHardTimeoutMs);
    this.#overdue++;
    this.#work.track(finished.finally(() => this.#overdue--));
    this.#fail(slots, error);
    stop.abort(error);
    return undefined;
  }

  /** Gives loaded values to their callers, and fills behind. */
  async #settle(
    slots: readonly BatchSlot[],
    values: readonly unknown[],
    attributes: Attributes | undefined,
  ): Promise<void> {
    // All values are sealed before a caller gets one: rows may share objects, and a caller may change its value.
    const sealed: (Sealed | undefined)[] = [];
    for (const [i, { vector }] of slots.entries()) {
      sealed.push(vector && (await this.#seal(vector, values[i], attributes)));
    }
    const loaded = slots.map((slot, i) => {
      const key = slot.vector?.entryKey ?? '';
      return { value: values[i], bytes: sealed[i]?.bytes ?? (slot.shared ? encoded(key, values[i]) : undefined), key };
    });
    for (const [i, slot] of slots.entries()) {
      slot.settle(loaded[i]!);
    }
    const toFill = sealed.filter((item) => item !== undefined);
    this.#work.track(this.#filler.fill(toFill, attributes).then(() => this.#queue.end(slots)));
  }

  /** Returns the stored form of a loaded value. Returns undefined for a refused value, and emits the refusal. */
  async #seal(vector: Vector, value: unknown, attributes: Attributes | undefined): Promise<Sealed | undefined> {
    try {
      return await this.#filler.seal(vector, value);
    } catch (error) {
      this.#filler.refuse(Vector.addressOf(vector), Filler.reasonOf(error), attributes, error as Error);
      return undefined;
    }
  }

  #fail(slots: readonly BatchSlot[], error: unknown): void {
    this.#queue.end(slots);
    for (const slot of slots) slot.fail(error);
  }

  readonly #report = (call: Call): void => {
    const { definition, attributes, stack, hits, absentHits, bypasses, bypassReasons, missed } = call;
    const { loadBatchMax } = definition;
    this.#telemetry.emit('read', {
      cache: definition.cache,
      namespace: definition.namespace,
      entry: definition.name,
      attributes,
      hits,
      absentHits,
      staleHits: 0,
      misses: missed.length,
      missed,
      bypasses,
      bypassReasons,
      durationMs: monotonicMs() - call.startedAtMs,
      queriesAvoided: Math.ceil(call.distinct / loadBatchMax) - Math.ceil(call.loads / loadBatchMax),
      stack,
    });
  };
}

/** Compared by identity: the store failed a whole lookup, not only its second command. */
const UNREACHED: LookupResult = { outcome: 'bypass', reason: 'store_failure' };
const BREAKER_OPEN: LookupResult = { outcome: 'bypass', reason: 'breaker_open' };
const BYPASS_STORE: LookupResult = { outcome: 'bypass', reason: 'bypass_store' };
const WITHIN: LookupResult = { outcome: 'bypass', reason: 'transaction' };

function* loadBatches({ loadBatchMax }: EntryDefinition, slots: readonly BatchSlot[]): Generator<readonly BatchSlot[]> {
  for (let start = 0; start < slots.length; start += loadBatchMax) yield slots.slice(start, start + loadBatchMax);
}

function list(missed: Map<EntryDefinition, BatchSlot[]>, slot: BatchSlot): void {
  const { definition } = slot.address;
  const group = missed.get(definition);
  if (group) group.push(slot);
  else missed.set(definition, [slot]);
}

/** Returns the stored form of a value that several callers share and no fill stores; undefined for an unencodable value. */
function encoded(key: string, value: unknown): Buffer | undefined {
  try {
    return seal(key, value);
  } catch {
    return undefined;
  }
}

/** Returns the attributes of the calls if all are equal; otherwise undefined. */
function commonAttributes(slots: readonly BatchSlot[]): Attributes | undefined {
  const { attributes } = slots[0]!.owner;
  if (attributes === undefined) return undefined;
  const key = JSON.stringify(attributes);
  return slots.every(({ owner }) => JSON.stringify(owner.attributes) === key) ? attributes : undefined;
}
