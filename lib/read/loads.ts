/**
 * Loads slots: calls loaders under the cap, gives the values to the callers, and fills behind. `load-queue.ts` has the
 * rules for slots that share a load, `leases.ts` those for processes that share one. No call is rejected for the ids of
 * another (`load-apart.ts`).
 *
 *     queue -> claim -> yours: load, answer, fill
 *       ^        |----> held by another process: wait -> look up -> answer
 *       |--------|----> changed, or waited for long enough
 */
import type { InFlight } from '../async/in-flight.js';
import { inNoContext } from '../async/no-context.js';
import { monotonicMs } from '../async/scheduling.js';
import { seal } from '../codec/envelope.js';
import type { EntryDefinition } from '../model/entry-definition.js';
import { Vector } from '../model/vector.js';
import type { Clock } from '../ports/clock.js';
import type { Source } from '../ports/source.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { Attributes } from '../telemetry/events.js';
import type { LoadCounts } from '../telemetry/state.js';
import { BatchSlot } from './batch-slot.js';
import { Call } from './call.js';
import { Filler, type Sealed } from './filler.js';
import { withinHardTimeout } from './hard-timeout.js';
import { type FailedLoad, loadApart } from './load-apart.js';
import type { BegunLoad, LoadCap } from './load-cap.js';
import { LoadQueue } from './load-queue.js';
import { LeaseWaiters } from './lease-waiters.js';
import type { Leases } from './leases.js';
import { load, type LoadRequest } from './loader.js';
import { lookupChunks } from './lookup-chunks.js';
import { type LookupResult, type Miss, missOf } from './lookup.js';
import { Refreshes } from './refreshes.js';
import type { SafeLookup } from './safe-lookup.js';

interface LoadsOptions {
  readonly source: Source<object, unknown>;
  readonly cap: LoadCap;
  readonly lookup: SafeLookup;
  readonly leases: Leases;
  readonly filler: Filler;
  readonly telemetry: Emitter;
  readonly clock: Clock;
  /** Counts loads and fills under way. */
  readonly work: InFlight;
}

/** Of a batch that was loaded. */
interface LoadedBatch {
  readonly attributes: Attributes | undefined;
  /** The duration of its load, in ms. */
  readonly loadMs: number;
}

export class Loads {
  readonly #source: Source<object, unknown>;
  readonly #cap: LoadCap;
  readonly #filler: Filler;
  readonly #telemetry: Emitter;
  readonly #clock: Clock;
  readonly #work: InFlight;
  readonly #lookup: SafeLookup;
  readonly #leases: Leases;
  readonly #queue: LoadQueue;
  readonly #waiters: LeaseWaiters;
  /** The loads whose loader has not settled. */
  readonly #running = new Set<AbortController>();
  readonly #refreshes = new Refreshes();
  #overdue = 0;

  constructor({ source, cap, lookup, leases, filler, telemetry, clock, work }: LoadsOptions) {
    this.#source = source;
    this.#cap = cap;
    this.#lookup = lookup;
    this.#leases = leases;
    this.#waiters = new LeaseWaiters({ look: (slots) => leases.look(slots), ended: this.#goOn });
    this.#filler = filler;
    this.#telemetry = telemetry;
    this.#clock = clock;
    this.#work = work;
    this.#queue = new LoadQueue({
      cap,
      start: (definition, slots) => this.#start(definition, slots),
      refuse: (slot, limit) => this.fail([slot], cap.overload(slot.address.definition, limit)),
    });
  }

  get counts(): LoadCounts {
    return {
      running: this.#cap.running,
      overdue: this.#overdue,
      waiting: this.#queue.waiting,
      elsewhere: this.#waiters.size,
    };
  }

  /** Joins a slot to the running load of its vector. Returns false if no load of that vector runs. */
  join(slot: BatchSlot): boolean {
    const joined = this.#queue.join(slot);
    if (joined) slot.fallBackAfter(slot.address.definition.loadSoftTimeoutMs);
    return joined;
  }

  /**
   * Loads an entry behind an answer, unless a load of it is under way here or in another process. `missed`: the lookup of
   * what is to be replaced.
   */
  refresh(missed: Miss): void {
    const { entryKey } = missed.vector;
    const address = Vector.addressOf(missed.vector);
    if (this.#refreshes.rests(entryKey) || this.#queue.isUnderWay(missed.vector)) return;
    const { definition } = address;
    const call = new Call({ definition, addresses: [address], labels: NO_LABELS, onSettled: () => {} });
    // No caller waits for it; a failed load has its own event.
    call.answer.catch(() => this.#refreshes.rest(entryKey));
    const slot = new BatchSlot(address, call, 0, true);
    slot.missed = missed;
    this.#queue.add(definition, [slot]);
  }

  /** Rejects the callers of slots. */
  fail(slots: readonly BatchSlot[], error: unknown): void {
    this.#queue.end(slots);
    this.#leases.fail(slots);
    for (const slot of slots) slot.fail(error);
  }

  /** Rejects the calls that wait for a load, and tells the loads that run to stop. */
  close(error: Error): void {
    for (const slot of [...this.#queue.close(), ...this.#waiters.close()]) this.fail([slot], error);
    for (const stop of this.#running) stop.abort(error);
  }

  /**
   * Loads slots with one query for each `loadBatchMax` of them, one after another; values several at once. What no caller
   * waits for any more, after an error, is left out.
   */
  async load(definition: EntryDefinition, slots: readonly BatchSlot[]): Promise<void> {
    for (const slot of slots) slot.fallBackAfter(definition.loadSoftTimeoutMs);
    const chunks = loadBatches(definition, slots);
    const loadNext = async () => {
      for (const chunk of chunks) {
        const wanted = chunk.filter((slot) => slot.isWanted);
        if (wanted.length === 0) continue;
        const answered = BatchSlot.answered(wanted);
        this.#queue.add(definition, wanted);
        await answered;
      }
    };
    const atOnce = definition.shape === 'value' ? definition.loadsMax : 1;
    await Promise.all(Array.from({ length: Math.min(atOnce, slots.length) }, loadNext));
  }

  /** Loads slots on the caller's transaction: never queued, since it has its connection, and never shared. */
  async loadWithin(trx: unknown, definition: EntryDefinition, slots: readonly BatchSlot[]): Promise<void> {
    for (const chunk of loadBatches(definition, slots)) {
      const failed = await this.#begin(definition, chunk, trx).answer;
      if (failed) this.fail(failed.slots, failed.error);
    }
  }

  /** Loads slots that other processes do not load. Resolves when the first loader has settled. Never rejects. */
  #start(definition: EntryDefinition, slots: readonly BatchSlot[]): Promise<unknown> {
    const claimed = slots.filter((slot) => isLeasable(slot) && !this.#leases.isOwn(slot));
    return claimed.length === 0 ? this.#call(definition, slots) : this.#claim(definition, slots, claimed);
  }

  /** Claims leases, loads what is to be loaded here, and only then, holding no place under the cap, waits for the rest. */
  async #claim(definition: EntryDefinition, slots: readonly BatchSlot[], claimed: readonly BatchSlot[]): Promise<void> {
    const claims = await this.#leases.claim(claimed);
    // Another process has refreshed it, does so, or has tried in vain.
    const behind = claimed.filter((slot, i) => claims[i] !== 'yours' && slot.isBehind);
    for (const slot of behind) this.#drop(slot);
    const dropped = new Set(behind);
    const held = claimed.filter((slot, i) => claims[i] === 'held' && !dropped.has(slot));
    const changed = claimed.filter(
      (slot, i) => (claims[i] === 'filled' || claims[i] === 'moved') && !dropped.has(slot),
    );
    const elsewhere = new Set([...behind, ...held, ...changed]);
    const own = elsewhere.size === 0 ? slots : slots.filter((slot) => !elsewhere.has(slot));
    const loaded = own.length === 0 ? undefined : this.#call(definition, own);
    if (elsewhere.size > 0) {
      this.#queue.release([...elsewhere]);
      for (const slot of [...held, ...changed]) this.#keepWaiting(slot);
      this.#waiters.add(held);
      if (changed.length > 0) this.#lookUpAgain(changed);
    }
    await loaded;
  }

  /** Ends a slot that no caller waits for. */
  #drop(slot: BatchSlot): void {
    this.#refreshes.rest(slot.vector!.entryKey);
    this.#queue.end([slot]);
    slot.leave();
  }

  /** Keeps a slot among the work under way while it waits for another process; its batch goes on. */
  #keepWaiting(slot: BatchSlot): void {
    slot.waitsUntilMs ??= monotonicMs() + slot.address.definition.loadSoftTimeoutMs;
    slot.leave();
    this.#work.track(BatchSlot.answered([slot]));
  }

  /** Goes on with slots that no other process loads any longer; `late` ones have waited for long enough. */
  readonly #goOn = (ended: readonly BatchSlot[], late: readonly BatchSlot[]): void => {
    if (ended.length > 0) this.#lookUpAgain(ended);
    if (late.length > 0) this.#queueAgain(late);
  };

  /** Looks up slots whose entry or generations changed, and answers them or queues them again. */
  #lookUpAgain(slots: readonly BatchSlot[]): void {
    // Their vector changes, so no later slot joins them by it.
    this.#queue.end(slots);
    const wanted: BatchSlot[] = [];
    for (const slot of slots) {
      if (slot.isWanted) wanted.push(slot);
      else slot.leave();
    }
    for (const chunk of lookupChunks(wanted)) {
      const looking = this.#lookup.read(chunk.map(({ address }) => address)).then((looked) => {
        const missed = chunk.filter((slot, i) => !answered(slot, looked[i]!));
        if (missed.length > 0) this.#queueAgain(missed);
      });
      this.#work.track(looking);
    }
  }

  #queueAgain(slots: readonly BatchSlot[]): void {
    const groups = new Map<EntryDefinition, BatchSlot[]>();
    for (const slot of slots) {
      const { definition } = slot.address;
      const group = groups.get(definition);
      if (group) group.push(slot);
      else groups.set(definition, [slot]);
    }
    this.#queue.end(slots);
    for (const [definition, group] of groups) this.#queue.add(definition, group);
  }

  /** Loads slots, and loads them apart if that fails. Resolves when the first loader has settled. */
  #call(definition: EntryDefinition, slots: readonly BatchSlot[]): Promise<unknown> {
    for (const slot of slots) slot.owner.loads++;
    const { answer, settled } = this.#begin(definition, slots);
    const loaded = answer.then((failed) => failed && this.#loadApart(definition, failed));
    this.#leases.renewUntil(loaded, slots);
    this.#work.track(loaded);
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
      fail: ({ slots, error }) => this.fail(slots, error),
    });
  }

  /**
   * Calls the loader for slots, and answers them when it has settled. The answer resolves to the load if the loader failed:
   * its slots are unanswered then. Never rejects.
   */
  #begin(definition: EntryDefinition, slots: readonly BatchSlot[], trx?: unknown): BegunLoad<FailedLoad | undefined> {
    const attributes = commonAttributes(slots);
    const stop = new AbortController();
    const request: LoadRequest = {
      definition,
      addresses: slots.map((slot) => slot.address),
      context: () => ({ ...this.#context(definition, trx, stop.signal), signal: stop.signal }),
      telemetry: this.#telemetry,
      purpose: 'read',
      attributes,
    };
    // A load that begins where another one ended would run in what that loader left of an async context.
    const startedAtMs = monotonicMs();
    const loading = trx === undefined ? inNoContext(load, request) : load(request);
    const finished = loading.then(
      async (values) => {
        try {
          await this.#settle(slots, values, { attributes, loadMs: monotonicMs() - startedAtMs });
        } catch (error) {
          // No step above should throw; an unexpected error must not leave the calls pending.
          this.fail(slots, error);
        }
        return undefined;
      },
      (error: unknown) => ({ slots, error }),
    );
    this.#running.add(stop);
    const ended = () => void this.#running.delete(stop);
    const settled = loading.then(ended, ended);
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
    try {
      return await withinHardTimeout(definition, finished, stop);
    } catch (error) {
      // `finished` never rejects: this is the timeout.
      this.#overdue++;
      this.#work.track(finished.finally(() => this.#overdue--));
      this.fail(slots, error);
      return undefined;
    }
  }

  /** Gives loaded values to their callers, and fills behind. */
  async #settle(slots: readonly BatchSlot[], values: readonly unknown[], loaded: LoadedBatch): Promise<void> {
    // All values are sealed before a caller gets one: rows may share objects, and a caller may change its value.
    const sealed: (Sealed | undefined)[] = [];
    for (const [i, { missed }] of slots.entries()) {
      sealed.push(
        missed?.cause === 'unstorable' ? undefined : missed && (await this.#seal(missed.vector, values[i], loaded)),
      );
    }
    const answers = slots.map((slot, i) => {
      const key = slot.vector?.entryKey ?? '';
      const bytes = sealed[i]?.bytes ?? (slot.shared ? encoded(key, values[i]) : undefined);
      return { value: values[i], bytes, key };
    });
    // A value without a stored form can't be copied, so no later slot joins its load.
    this.#queue.end(slots.filter((_, i) => sealed[i] === undefined));
    for (const [i, slot] of slots.entries()) {
      slot.settle(answers[i]!);
    }
    this.#work.track(this.#fill(slots, sealed, loaded.attributes));
  }

  async #fill(
    slots: readonly BatchSlot[],
    sealed: readonly (Sealed | undefined)[],
    attributes: Attributes | undefined,
  ): Promise<void> {
    const lease = slots.find((slot) => slot.lease !== undefined)?.lease;
    const toFill = sealed.filter((item) => item !== undefined);
    const unstorable = slots.filter(({ lease: own }, i) => own !== undefined && sealed[i] === undefined);
    if (unstorable.length > 0) toFill.push(...unstorable.map(({ vector }) => Filler.marker(vector!)));
    const { isSettled } = await this.#filler.fill(toFill, attributes, lease);
    if (isSettled) this.#leases.end(slots);
    else this.#leases.fail(slots);
    this.#queue.end(slots);
  }

  /** Returns the stored form of a loaded value. Returns undefined for a refused value, and emits the refusal. */
  async #seal(vector: Vector, value: unknown, { attributes, loadMs }: LoadedBatch): Promise<Sealed | undefined> {
    try {
      return await this.#filler.seal(vector, value, loadMs);
    } catch (error) {
      this.#filler.refuse(Vector.addressOf(vector), Filler.reasonOf(error), attributes, error as Error);
      return undefined;
    }
  }
}

const NO_LABELS = { attributes: undefined, stack: undefined };

/** Whether a slot is to be loaded by one process alone. A load without a vector stores nothing that another could wait for. */
function isLeasable({ address, missed, waitsUntilMs }: BatchSlot): boolean {
  if (!address.definition.leases || missed === undefined || missed.cause === 'unstorable') return false;
  // A value that is to be replaced, and can't be told from another one.
  if (missed.replaced?.length === 0) return false;
  return waitsUntilMs === undefined || monotonicMs() < waitsUntilMs;
}

/** Answers a slot with what a lookup found after all its readers began. Returns false if it is to be loaded. */
function answered(slot: BatchSlot, looked: LookupResult): boolean {
  if (looked.outcome === 'miss') slot.missed = looked;
  // Its TTL has passed meanwhile.
  else slot.missed = looked.outcome === 'stale' ? missOf(slot.address, looked) : undefined;
  if (looked.outcome === 'miss' || looked.outcome === 'stale' || looked.outcome === 'bypass') return false;
  slot.settle({ value: looked.value, bytes: looked.bytes, key: looked.location.key });
  return true;
}

function* loadBatches({ loadBatchMax }: EntryDefinition, slots: readonly BatchSlot[]): Generator<readonly BatchSlot[]> {
  for (let start = 0; start < slots.length; start += loadBatchMax) yield slots.slice(start, start + loadBatchMax);
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
  return slots.every(({ owner }) => areEqual(owner.attributes, attributes)) ? attributes : undefined;
}

function areEqual(one: Attributes | undefined, other: Attributes): boolean {
  if (one === other) return true;
  const names = Object.keys(one ?? {});
  return names.length === Object.keys(other).length && names.every((name) => Object.is(one![name], other[name]));
}
