/**
 * Has slots loaded, under the cap: `load-queue.ts` has the rules for slots that share a load, `leases.ts` those for processes
 * that share one, `load-runner.ts` runs one. No call is rejected for the ids of another (`load-apart.ts`).
 *
 *     queue -> claim -> yours: load, answer, fill
 *       ^        |----> held by another process: wait -> look up -> answer
 *       |--------|----> changed, or waited for long enough
 */
import type { InFlight } from '../async/in-flight.js';
import { monotonicMs } from '../async/scheduling.js';
import type { EntryDefinition } from '../model/entry-definition.js';
import { Vector } from '../model/vector.js';
import type { Clock } from '../ports/clock.js';
import type { Source } from '../ports/source.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { LoadCounts } from '../telemetry/state.js';
import { BatchSlot } from './batch-slot.js';
import { Call } from './call.js';
import type { Filler } from './filler.js';
import { type FailedLoad, loadApart } from './load-apart.js';
import type { LoadCap } from './load-cap.js';
import { LoadQueue } from './load-queue.js';
import { LoadRunner } from './load-runner.js';
import { LeaseWaiters } from './lease-waiters.js';
import type { Leases } from './leases.js';
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

export class Loads {
  readonly #cap: LoadCap;
  readonly #clock: Clock;
  readonly #work: InFlight;
  readonly #lookup: SafeLookup;
  readonly #leases: Leases;
  readonly #queue: LoadQueue;
  readonly #waiters: LeaseWaiters;
  readonly #runner: LoadRunner;
  readonly #refreshes = new Refreshes();
  /** What calls that wait for a load are rejected with, after `close`. */
  #closed: Error | undefined;

  constructor({ source, cap, lookup, leases, filler, telemetry, clock, work }: LoadsOptions) {
    this.#cap = cap;
    this.#lookup = lookup;
    this.#leases = leases;
    this.#waiters = new LeaseWaiters({ look: (slots) => leases.look(slots), ended: this.#goOn });
    this.#runner = new LoadRunner({
      ...{ source, leases, filler, telemetry, work },
      ended: (slots) => this.#queue.end(slots),
      fail: (slots, error) => this.fail(slots, error),
    });
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
      overdue: this.#runner.overdue,
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
    this.#refreshes.begin(entryKey);
    // No caller waits for it; a failed load has its own event.
    const ended = () => this.#refreshes.end(entryKey);
    call.answer.then(ended, () => this.#refreshes.rest(entryKey));
    const slot = new BatchSlot(address, call, 0, true);
    slot.missed = missed;
    this.#work.track(BatchSlot.answered([slot]));
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
    this.#closed = error;
    for (const slot of [...this.#queue.close(), ...this.#waiters.close()]) this.fail([slot], error);
    this.#runner.stop(error);
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
      const failed = await this.#runner.begin(definition, chunk, trx).answer;
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
    const claimOf = new Map(claimed.map((slot, i) => [slot, claims[i]!]));
    const own: BatchSlot[] = [];
    const dropped: BatchSlot[] = [];
    const held: BatchSlot[] = [];
    const changed: BatchSlot[] = [];
    for (const slot of slots) {
      const claim = claimOf.get(slot) ?? 'yours';
      if (claim === 'yours' || claim === 'unanswered') own.push(slot);
      // Another process has refreshed it, does so, or has tried in vain.
      else if (slot.isBehind) dropped.push(slot);
      else if (claim === 'leaseless') own.push(slot);
      else if (claim === 'held') held.push(slot);
      else changed.push(slot);
    }
    const loaded = own.length === 0 ? undefined : this.#call(definition, own);
    if (own.length < slots.length) this.#wait(dropped, held, changed);
    await loaded;
  }

  /** Goes on with slots that are not loaded here: another process loads those of `held`, and `changed` ones are looked up. */
  #wait(dropped: readonly BatchSlot[], held: readonly BatchSlot[], changed: readonly BatchSlot[]): void {
    const elsewhere = [...held, ...changed];
    this.#queue.release([...dropped, ...elsewhere]);
    for (const slot of dropped) this.#drop(slot);
    if (this.#closed) return this.fail(elsewhere, this.#closed);
    for (const slot of elsewhere) this.#keepWaiting(slot);
    this.#waiters.add(held);
    if (changed.length > 0) this.#lookUpAgain(changed);
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
      // No step should throw; an unexpected error must not leave the calls pending.
      this.#work.track(looking.catch((error: unknown) => this.fail(chunk, error)));
    }
  }

  #queueAgain(slots: readonly BatchSlot[]): void {
    if (this.#closed) return this.fail(slots, this.#closed);
    const groups = new Map<EntryDefinition, BatchSlot[]>();
    for (const slot of slots) BatchSlot.list(groups, slot);
    this.#queue.end(slots);
    for (const [definition, group] of groups) this.#queue.add(definition, group);
  }

  /** Loads slots, and loads them apart if that fails. Resolves when the first loader has settled. */
  #call(definition: EntryDefinition, slots: readonly BatchSlot[]): Promise<unknown> {
    for (const slot of slots) slot.owner.loads++;
    const { answer, settled } = this.#runner.begin(definition, slots);
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
          return await this.#cap.run(definition, () => this.#runner.begin(definition, slots));
        } catch {
          // No room in time: the callers get the error of their own load.
          return { slots, error: failed.error };
        }
      },
      fail: ({ slots, error }) => this.fail(slots, error),
    });
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
