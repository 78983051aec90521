/**
 * Runs one load: calls the loader for slots, gives them their values, and fills behind. The caller has the room, and the
 * leases.
 */
import type { InFlight } from '../async/in-flight.js';
import { inNoContext } from '../async/no-context.js';
import { monotonicMs } from '../async/scheduling.js';
import { seal } from '../codec/envelope.js';
import type { EntryDefinition } from '../model/entry-definition.js';
import { Vector } from '../model/vector.js';
import type { Source } from '../ports/source.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { Attributes } from '../telemetry/events.js';
import type { BatchSlot } from './batch-slot.js';
import { Filler, type Sealed } from './filler.js';
import { withinHardTimeout } from './hard-timeout.js';
import type { Leases } from './leases.js';
import type { FailedLoad } from './load-apart.js';
import type { BegunLoad } from './load-cap.js';
import { load, type LoadRequest } from './loader.js';

interface LoadRunnerOptions {
  readonly source: Source<object, unknown>;
  readonly leases: Leases;
  readonly filler: Filler;
  readonly telemetry: Emitter;
  /** Counts loads and fills under way. */
  readonly work: InFlight;
  /** Called with slots that no later slot may join. */
  readonly ended: (slots: readonly BatchSlot[]) => void;
  /** Rejects the callers of slots. */
  readonly fail: (slots: readonly BatchSlot[], error: unknown) => void;
}

/** Of a batch that was loaded. */
interface LoadedBatch {
  readonly attributes: Attributes | undefined;
  /** The duration of its load, in ms. */
  readonly loadMs: number;
}

export class LoadRunner {
  readonly #source: Source<object, unknown>;
  readonly #leases: Leases;
  readonly #filler: Filler;
  readonly #telemetry: Emitter;
  readonly #work: InFlight;
  readonly #ended: LoadRunnerOptions['ended'];
  readonly #fail: LoadRunnerOptions['fail'];
  /** The loads whose loader has not settled. */
  readonly #running = new Set<AbortController>();
  #overdue = 0;

  constructor({ source, leases, filler, telemetry, work, ended, fail }: LoadRunnerOptions) {
    this.#source = source;
    this.#leases = leases;
    this.#filler = filler;
    this.#telemetry = telemetry;
    this.#work = work;
    this.#ended = ended;
    this.#fail = fail;
  }

  /** Number of loads that took longer than their hard timeout, and have not settled. */
  get overdue(): number {
    return this.#overdue;
  }

  /** Tells the loads that run to stop. */
  stop(error: Error): void {
    for (const stop of this.#running) stop.abort(error);
  }

  /**
   * Calls the loader for slots, and answers them when it has settled. The answer resolves to the load if the loader failed:
   * its slots are unanswered then. Never rejects.
   */
  begin(definition: EntryDefinition, slots: readonly BatchSlot[], trx?: unknown): BegunLoad<FailedLoad | undefined> {
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
    const startedAtMs = monotonicMs();
    // A load that begins where another one ended would run in what that loader left of an async context.
    const loading = trx === undefined ? inNoContext(load, request) : load(request);
    const finished = loading.then(
      async (values) => {
        try {
          await this.#settle(slots, values, { attributes, loadMs: monotonicMs() - startedAtMs });
        } catch (error) {
          // No step above should throw; an unexpected error must not leave the calls pending.
          this.#fail(slots, error);
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
      this.#fail(slots, error);
      return undefined;
    }
  }

  /** Gives loaded values to their callers, and fills behind. */
  async #settle(slots: readonly BatchSlot[], values: readonly unknown[], loaded: LoadedBatch): Promise<void> {
    // All values are sealed before a caller gets one: rows may share objects, and a caller may change its value.
    const sealed: (Sealed | undefined)[] = [];
    for (const [i, { missed }] of slots.entries()) {
      sealed.push(missed && (await this.#seal(missed.vector, values[i], loaded)));
    }
    const answers = slots.map((slot, i) => {
      const key = slot.vector?.entryKey ?? '';
      const bytes = sealed[i]?.bytes ?? (slot.shared ? encoded(key, values[i]) : undefined);
      return { value: values[i], bytes, key };
    });
    // A value without a stored form can't be copied, so no later slot joins its load.
    this.#ended(slots.filter((_, i) => sealed[i] === undefined));
    for (const [i, slot] of slots.entries()) slot.settle(answers[i]!);
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
    this.#ended(slots);
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
