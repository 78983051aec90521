/**
 * Answers calls: looks up the entries of one turn together, and has the misses loaded (`loads.ts`).
 *
 * Each call settles as soon as it has all its values: a hit never waits for another call's load. Calls that share an
 * entry get values of their own; a call that names an entry twice gets one value for both.
 */
import type { InFlight } from '../async/in-flight.js';
import { MicrotaskBatch } from '../async/microtask-batch.js';
import { monotonicMs } from '../async/scheduling.js';
import type { Address, EntryDefinition } from '../model/entry-definition.js';
import type { Emitter } from '../telemetry/emitter.js';
import { BatchSlot } from './batch-slot.js';
import { Call, type CallLabels } from './call.js';
import type { Loads } from './loads.js';
import { type LookupResult, missOf } from './lookup.js';
import { lookupChunks } from './lookup-chunks.js';
import { partitionsOf } from './lookups.js';
import type { OutageAnswers } from './outage-answers.js';
import { isUnanswered, isUnreached, type SafeLookup } from './safe-lookup.js';
import type { Verifier } from './verifier.js';

/** What the partitions answered that failed a lookup of a batch. */
type Away = Map<string, LookupResult>;

interface ReaderOptions {
  readonly lookup: SafeLookup;
  readonly loads: Loads;
  readonly verifier: Verifier | undefined;
  /** undefined unless the local tier answers in outages. */
  readonly outage: OutageAnswers | undefined;
  readonly telemetry: Emitter;
  /** Counts reads, loads and fills under way. */
  readonly work: InFlight;
}

export class Reader {
  readonly #lookup: SafeLookup;
  readonly #loads: Loads;
  readonly #verifier: Verifier | undefined;
  readonly #outage: OutageAnswers | undefined;
  readonly #telemetry: Emitter;
  readonly #turn = new MicrotaskBatch<Call>((calls) => this.#work.track(this.#read(calls)));
  readonly #work: InFlight;

  constructor({ lookup, loads, verifier, outage, telemetry, work }: ReaderOptions) {
    this.#lookup = lookup;
    this.#loads = loads;
    this.#verifier = verifier;
    this.#outage = outage;
    this.#telemetry = telemetry;
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
    const [looked] = await this.#lookup.read([address]);
    call.count(address, looked!);
    if (looked!.outcome === 'stale') call.countStale(address, { reason: 'refreshing', staleForMs: looked!.staleForMs });
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
      let away: Away | undefined;
      for (const chunk of lookupChunks(slots)) {
        const addresses = chunk.map((slot) => slot.address);
        const looked = await (away ? this.#lookUpRest(addresses, away) : this.#lookup.read(addresses));
        for (let i = 0; i < looked.length; i++) {
          if (isUnreached(looked[i]!)) (away ??= new Map()).set(partitionsOf(addresses[i]!).join(), looked[i]!);
        }
        for (let i = 0; i < chunk.length; i++) {
          const slot = chunk[i]!;
          if (!this.#answer(slot, looked[i]!))
            BatchSlot.list((missed ??= new Map<EntryDefinition, BatchSlot[]>()), slot);
        }
      }
    } catch (error) {
      // No step above should throw; an unexpected error must not leave the calls pending.
      return this.#loads.fail(slots, error);
    }
    if (missed === undefined) return;
    await Promise.all([...missed].map(([definition, group]) => this.#loads.load(definition, group)));
  }

  /**
   * Looks up a further chunk of a batch. The entries of partitions that are `away` skip the store, so that the call waits for
   * one deadline only; those of the others are looked up as ever.
   */
  async #lookUpRest(addresses: readonly Address[], away: Away): Promise<readonly LookupResult[]> {
    const skipped = addresses.map((address) => away.get(partitionsOf(address).join()));
    const asked = addresses.filter((_, i) => skipped[i] === undefined);
    const looked = asked.length === 0 ? [] : await this.#lookup.read(asked);
    let next = 0;
    return skipped.map((result) => result ?? looked[next++]!);
  }

  /** Answers a slot, or joins it to a load under way. Returns false if the slot needs a load. */
  #answer(slot: BatchSlot, looked: LookupResult): boolean {
    const lastKnown = this.#outage && isUnanswered(looked) ? this.#outage.find(slot.address) : undefined;
    if (lastKnown !== undefined) {
      slot.giveStale(lastKnown, 'outage');
      return true;
    }
    slot.count(looked);
    if (looked.outcome === 'hit' || looked.outcome === 'absent') {
      this.#verifier?.consider(slot.address, looked, slot.owner.attributes);
      const { value, location, local } = looked;
      slot.give({ value, bytes: local === undefined ? looked.bytes : undefined, key: location.key, local });
      if (looked.isDue) this.#loads.refresh(missOf(slot.address, looked));
      return true;
    }
    if (looked.outcome === 'stale') {
      slot.giveStale(looked, 'refreshing');
      this.#loads.refresh(missOf(slot.address, looked));
      return true;
    }
    if (looked.outcome === 'miss') {
      slot.miss(looked);
      return this.#loads.join(slot);
    }
    return false;
  }

  readonly #report = (call: Call): void => {
    const { definition, attributes, stack, hits, absentHits, localHits, bypasses, bypassReasons, missed, stale } = call;
    const { loadBatchMax } = definition;
    this.#telemetry.emit('read', {
      cache: definition.cache,
      namespace: definition.namespace,
      entry: definition.name,
      attributes,
      hits,
      absentHits,
      localHits,
      trackedHits: 0,
      staleHits: stale.length,
      misses: missed.length,
      missed,
      bypasses,
      bypassReasons,
      durationMs: monotonicMs() - call.startedAtMs,
      queriesAvoided: call.failed ? 0 : Math.ceil(call.distinct / loadBatchMax) - Math.ceil(call.loads / loadBatchMax),
      stack,
    });
    for (const served of stale) {
      const { cache, namespace, name: entry } = definition;
      this.#telemetry.emit('staleHit', { cache, namespace, entry, attributes, ...served });
    }
  };
}

const WITHIN: LookupResult = { outcome: 'bypass', reason: 'transaction' };
