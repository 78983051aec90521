/**
 * Loads slots: calls loaders under the cap, gives the values to the callers, and fills behind. `load-queue.ts` has the
 * rules for slots that share a load. No call is rejected for the ids of another (`load-apart.ts`).
 */
import { endsWithin } from '../async/ends-within.js';
import type { InFlight } from '../async/in-flight.js';
import { seal } from '../codec/envelope.js';
import { LoadTimeoutError } from '../errors/errors.js';
import type { EntryDefinition } from '../model/entry-definition.js';
import { Vector } from '../model/vector.js';
import type { Clock } from '../ports/clock.js';
import type { Source } from '../ports/source.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { Attributes } from '../telemetry/events.js';
import type { LoadCounts } from '../telemetry/state.js';
import { BatchSlot } from './batch-slot.js';
import { Filler, type Sealed } from './filler.js';
import { type FailedLoad, loadApart } from './load-apart.js';
import type { BegunLoad, LoadCap } from './load-cap.js';
import { LoadQueue } from './load-queue.js';
import { load } from './loader.js';

interface LoadsOptions {
  readonly source: Source<object, unknown>;
  readonly cap: LoadCap;
  readonly filler: Filler;
  readonly telemetry: Emitter;
  readonly clock: Clock;
  /** Counts loads and fills under way. */
  readonly work: InFlight;
}

export class Loads {
  readonly #source: Source<object, unknown>;
  readonly #cap: LoadCap;
  readonly #filler: Filler;
  readonly #telemetry: Emitter;
  readonly #clock: Clock;
  readonly #work: InFlight;
  readonly #queue: LoadQueue;
  #overdue = 0;

  constructor({ source, cap, filler, telemetry, clock, work }: LoadsOptions) {
    this.#source = source;
    this.#cap = cap;
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
    return { running: this.#cap.running, overdue: this.#overdue, waiting: this.#queue.waiting };
  }

  /** Joins a slot to the running load of its vector. Returns false if there is none. */
  join(slot: BatchSlot): boolean {
    return this.#queue.join(slot);
  }

  /** Rejects the callers of slots. */
  fail(slots: readonly BatchSlot[], error: unknown): void {
    this.#queue.end(slots);
    for (const slot of slots) slot.fail(error);
  }

  /** Ends the timer of the queue. */
  close(): void {
    this.#queue.close();
  }

  /** Loads slots with one query for each `loadBatchMax` of them, one after another; values beside each other. */
  async load(definition: EntryDefinition, slots: readonly BatchSlot[]): Promise<void> {
    const chunks = definition.shape === 'value' ? [slots] : loadBatches(definition, slots);
    for (const chunk of chunks) {
      const answered = BatchSlot.answered(chunk);
      this.#queue.add(definition, chunk);
      await answered;
    }
  }

  /** Loads slots on the caller's transaction: never queued, since it has its connection, and never shared. */
  async loadWithin(trx: unknown, definition: EntryDefinition, slots: readonly BatchSlot[]): Promise<void> {
    for (const chunk of loadBatches(definition, slots)) {
      const failed = await this.#begin(definition, chunk, trx).answer;
      if (failed) this.fail(failed.slots, failed.error);
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
          this.fail(slots, error);
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
    this.fail(slots, error);
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
  const key = JSON.stringify(attributes);
  return slots.every(({ owner }) => JSON.stringify(owner.attributes) === key) ? attributes : undefined;
}
