/**
 * Answers calls: looks up the entries of one turn together, and has the misses loaded (`loads.ts`).
 *
 * Each call settles as soon as it has all its values: a hit never waits for another call's load. Calls that share an
 * entry get values of their own; a call that names an entry twice gets one value for both.
 */
import { Deadline } from '../async/deadline.js';
import type { InFlight } from '../async/in-flight.js';
import { MicrotaskBatch } from '../async/microtask-batch.js';
import { monotonicMs, setImmediate } from '../async/scheduling.js';
import type { GencacheError } from '../errors/errors.js';
import type { Address, EntryDefinition } from '../model/entry-definition.js';
import type { Store } from '../ports/store.js';
import type { Emitter } from '../telemetry/emitter.js';
import { BatchSlot } from './batch-slot.js';
import type { Breaker } from './breaker.js';
import { Call, type CallLabels } from './call.js';
import type { Loads } from './loads.js';
import type { Lookup, LookupResult } from './lookup.js';
import { lookupChunks } from './lookup-chunks.js';
import type { Verifier } from './verifier.js';

interface ReaderOptions {
  readonly store: Store;
  readonly lookup: Lookup;
  readonly breaker: Breaker;
  readonly loads: Loads;
  readonly unbumped: MissingBumps;
  readonly verifier: Verifier | undefined;
  readonly telemetry: Emitter;
  readonly options: ReadLimits;
  /** Counts reads, loads and fills under way. */
  readonly work: InFlight;
}

/** The scopes whose bump by this process failed. */
interface MissingBumps {
  readonly size: number;
  includes(scopes: Address['scopes']): boolean;
}

interface ReadLimits {
  readonly readDeadlineMs: number;
}

export class Reader {
  readonly #store: Store;
  readonly #lookup: Lookup;
  readonly #breaker: Breaker;
  readonly #loads: Loads;
  readonly #unbumped: MissingBumps;
  readonly #verifier: Verifier | undefined;
  readonly #telemetry: Emitter;
  readonly #options: ReadLimits;
  readonly #turn = new MicrotaskBatch<Call>((calls) => this.#work.track(this.#read(calls)));
  readonly #work: InFlight;

  constructor({ store, lookup, breaker, loads, unbumped, verifier, telemetry, options, work }: ReaderOptions) {
    this.#store = store;
    this.#lookup = lookup;
    this.#breaker = breaker;
    this.#loads = loads;
    this.#unbumped = unbumped;
    this.#verifier = verifier;
    this.#telemetry = telemetry;
    this.#options = options;
    this.#work = work;
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
    this.#work.track(this.#loads.loadWithin(trx, definition, slots));
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

  /** Resolves when no read, load or fill is under way. */
  settled(): Promise<void> {
    return this.#work.drained(this.#turn);
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
        unreached = looked.find((result) => result === UNREACHED || result === BREAKER_OPEN);
        for (let i = 0; i < chunk.length; i++) {
          const slot = chunk[i]!;
          if (!this.#answer(slot, looked[i]!)) list((missed ??= new Map<EntryDefinition, BatchSlot[]>()), slot);
        }
      }
    } catch (error) {
      // No step above should throw; an unexpected error must not leave the calls pending.
      return this.#loads.fail(slots, error);
    }
    if (missed === undefined) return;
    await Promise.all([...missed].map(([definition, group]) => this.#loads.load(definition, group)));
  }

  /** Looks up a chunk under one deadline for all its commands. A failing store makes every entry a bypass. */
  #lookUp(addresses: readonly Address[]): Promise<readonly LookupResult[]> {
    if (this.#store.bypassed) return Promise.resolve(addresses.map(() => BYPASS_STORE));
    // Before the lookup: a bump that succeeds meanwhile does not make an earlier reply new.
    return this.#unbumped.size > 0 ? this.#lookUpBumped(addresses) : this.#ask(addresses);
  }

  /** Looks up the entries that miss no bump of this process. */
  async #lookUpBumped(addresses: readonly Address[]): Promise<readonly LookupResult[]> {
    const bumped = addresses.filter(({ scopes }) => !this.#unbumped.includes(scopes));
    const looked = new Map<Address, LookupResult>();
    if (bumped.length > 0) {
      const results = await this.#ask(bumped);
      for (const [i, address] of bumped.entries()) looked.set(address, results[i]!);
    }
    return addresses.map((address) => looked.get(address) ?? UNBUMPED);
  }

  async #ask(addresses: readonly Address[]): Promise<readonly LookupResult[]> {
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
      return this.#loads.join(slot);
    }
    return false;
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
      queriesAvoided: call.failed ? 0 : Math.ceil(call.distinct / loadBatchMax) - Math.ceil(call.loads / loadBatchMax),
      stack,
    });
  };
}

/** Compared by identity: the store failed a whole lookup, not only its second command. */
const UNREACHED: LookupResult = { outcome: 'bypass', reason: 'store_failure' };
const BREAKER_OPEN: LookupResult = { outcome: 'bypass', reason: 'breaker_open' };
const UNBUMPED: LookupResult = { outcome: 'bypass', reason: 'unbumped' };
const BYPASS_STORE: LookupResult = { outcome: 'bypass', reason: 'bypass_store' };
const WITHIN: LookupResult = { outcome: 'bypass', reason: 'transaction' };

function list(missed: Map<EntryDefinition, BatchSlot[]>, slot: BatchSlot): void {
  const { definition } = slot.address;
  const group = missed.get(definition);
  if (group) group.push(slot);
  else missed.set(definition, [slot]);
}
