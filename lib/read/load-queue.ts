/**
 * The loads of one cache that readers share.
 *
 *     slot -> joins the running load of its vector
 *          -> joins the gathering slot of its entry
 *          -> gathers: waits while two loads of its entry run, then for room under the cap; is called
 *
 * A slot that is not called yet gathers: every further reader of its entry joins it, since the load begins after that reader
 * did. So for each entry two loads run at most and one gathers, however many readers come. The second one spares the first
 * reader after a bump, or of a rarely read entry, the wait for a load that began just before it. A load that has taken longer
 * than the soft timeout is not waited for.
 *
 * **Invariant** (docs/protocol.md, rule 20). A reader gets the result of a load only if the load was called after the reader
 * began, or if the reader itself read, after it began, the vector that the load runs under. "Called" is the call of `start`,
 * with the ids fixed.
 *
 * Slots that wait for room are called together, up to `loadBatchMax`: the longer the queue, the larger the queries. Entries
 * take turns.
 */
import { clearTimeout, monotonicMs, setImmediate, setTimeout } from '../async/scheduling.js';
import type { EntryDefinition } from '../model/entry-definition.js';
import { Vector } from '../model/vector.js';
import type { BatchSlot } from './batch-slot.js';
import type { LoadCap } from './load-cap.js';

interface LoadQueueOptions {
  readonly cap: LoadCap;
  /** Calls the loader for slots of one entry, and answers them. Resolves when the loader has settled. Never rejects. */
  readonly start: (definition: EntryDefinition, slots: readonly BatchSlot[]) => Promise<unknown>;
  /** Rejects the callers of a slot that is not called. */
  readonly refuse: (slot: BatchSlot, limit: 'time' | 'length') => void;
}

/** Most loads of one entry at once, but for those past their soft timeout. */
const LOADS_PER_ENTRY_MAX = 2;

export class LoadQueue {
  readonly #cap: LoadCap;
  readonly #start: LoadQueueOptions['start'];
  readonly #refuse: LoadQueueOptions['refuse'];
  readonly #lanes = new Map<EntryDefinition, Lane>();
  /** Slots that gather, and since when, by the monotonic clock: the oldest first. */
  readonly #gathering = new Map<BatchSlot, number>();
  /** Slots that load under a vector, by entry key, which holds the vector: from the call until their fill has settled. */
  readonly #byVector = new Map<string, BatchSlot>();
  /** The slots that a gathering slot of their entry waits for, with those that they are loaded with. */
  readonly #called = new Map<BatchSlot, readonly BatchSlot[]>();
  #timer: NodeJS.Timeout | undefined;

  constructor({ cap, start, refuse }: LoadQueueOptions) {
    this.#cap = cap;
    this.#start = start;
    this.#refuse = refuse;
    cap.onRoom(() => this.#callNext());
  }

  /** Number of entries that wait for their load to begin. */
  get waiting(): number {
    return this.#gathering.size;
  }

  /** Joins a slot to the running load of its vector, unless that value would be older than the TTL. */
  join(slot: BatchSlot): boolean {
    const { vector, address } = slot;
    const running = vector && this.#byVector.get(vector.entryKey);
    if (!running || vector.capturedAtMs - running.vector!.capturedAtMs >= address.definition.ttlMs) return false;
    running.join(slot);
    return true;
  }

  /** Whether a load of an entry is queued, or runs under this vector. */
  isUnderWay(vector: Vector): boolean {
    const { definition, id } = Vector.addressOf(vector);
    return this.#byVector.has(vector.entryKey) || this.#lanes.get(definition)?.entries.get(id)?.gathering !== undefined;
  }

  /** Queues slots of one entry, and calls what may begin. A full queue refuses them. */
  add(definition: EntryDefinition, slots: readonly BatchSlot[]): void {
    let lane = this.#lanes.get(definition);
    if (lane === undefined) this.#lanes.set(definition, (lane = { entries: new Map(), ready: new Set() }));
    const isFull = this.#isFull;
    for (const slot of slots) {
      const { id } = slot.address;
      let entry = lane.entries.get(id);
      if (entry === undefined) lane.entries.set(id, (entry = { running: 0, gathering: undefined }));
      if (entry.gathering !== undefined) join(entry.gathering, slot);
      else {
        entry.gathering = slot;
        this.#gathering.set(slot, monotonicMs());
      }
      promote(lane, entry);
    }
    this.#callNext();
    if (this.#gathering.size === 0) return;
    if (isFull) for (const slot of slots) if (lane.ready.has(slot)) this.#dropSoon(slot);
    this.#timer ??= this.#watch();
  }

  /** Ends the queue. Returns the slots that were waiting. */
  close(): BatchSlot[] {
    clearTimeout(this.#timer);
    const waiting = [...this.#gathering.keys()];
    for (const slot of waiting) this.#remove(slot);
    return waiting;
  }

  /** Whether as many entries as may wait for room do so. An entry that waits for its own loads needs no room yet. */
  get #isFull(): boolean {
    let ready = 0;
    for (const lane of this.#lanes.values()) ready += lane.ready.size;
    return ready >= this.#cap.limits.loadQueueMax;
  }

  /** Ends the loads of these slots: no later slot joins them. */
  end(slots: readonly BatchSlot[]): void {
    for (const slot of slots) {
      const key = slot.vector?.entryKey;
      if (key !== undefined && this.#byVector.get(key) === slot) this.#byVector.delete(key);
    }
  }

  /** Calls the loaders of ready slots while there is room. */
  #callNext(): void {
    for (const [definition, lane] of this.#lanes) {
      if (lane.ready.size === 0 || !this.#cap.hasRoom(definition)) continue;
      this.#call(definition, lane);
      // To the end of the map, where this loop meets it again: entries take turns.
      this.#lanes.delete(definition);
      this.#lanes.set(definition, lane);
    }
  }

  #call(definition: EntryDefinition, lane: Lane): void {
    const slots: BatchSlot[] = [];
    for (const slot of lane.ready) {
      if (slots.length === definition.loadBatchMax) break;
      lane.ready.delete(slot);
      this.#gathering.delete(slot);
      const entry = lane.entries.get(slot.address.id)!;
      entry.gathering = undefined;
      entry.running++;
      if (slot.vector !== undefined) this.#byVector.set(slot.vector.entryKey, slot);
      slots.push(slot);
    }
    for (const slot of slots) this.#called.set(slot, slots);
    /** Those that have not left this call: a slot that left may be in another one. */
    const waitedFor = () => slots.filter((slot) => this.#called.get(slot) === slots);
    const timer = setTimeout(() => {
      const late = waitedFor();
      this.end(late);
      this.release(late);
    }, definition.loadSoftTimeoutMs).unref();
    const loading = this.#start(definition, slots).then(() => {
      clearTimeout(timer);
      this.#leave(waitedFor());
    });
    this.#cap.take(definition, loading);
  }

  /** Lets gathering slots wait no longer for the load of these slots: it takes too long, or another process loads them. */
  release(slots: readonly BatchSlot[]): void {
    this.#leave(slots);
    this.#callNext();
  }

  #leave(slots: readonly BatchSlot[]): void {
    for (const slot of slots) {
      if (!this.#called.delete(slot)) continue;
      const { definition, id } = slot.address;
      const lane = this.#lanes.get(definition)!;
      const entry = lane.entries.get(id)!;
      entry.running--;
      promote(lane, entry);
      if (entry.running === 0 && entry.gathering === undefined) lane.entries.delete(id);
      if (lane.entries.size === 0) this.#lanes.delete(definition);
    }
  }

  /**
   * Refuses slots that have waited for room for too long. One that has waited for loads of its own entry begins in place of
   * that: those are too slow to be waited for.
   */
  #watch(): NodeJS.Timeout | undefined {
    const { loadQueueTimeoutMs } = this.#cap.limits;
    const nowMs = monotonicMs();
    let timer: NodeJS.Timeout | undefined;
    for (const [slot, sinceMs] of this.#gathering) {
      const leftMs = sinceMs + loadQueueTimeoutMs - nowMs;
      if (leftMs > 0) {
        timer = setTimeout(() => (this.#timer = this.#watch()), leftMs).unref();
        break;
      }
      const { ready } = this.#lanes.get(slot.address.definition)!;
      if (ready.has(slot)) {
        this.#remove(slot);
        this.#refuse(slot, 'time');
      } else {
        this.#gathering.delete(slot);
        this.#gathering.set(slot, nowMs);
        ready.add(slot);
      }
    }
    this.#callNext();
    return timer;
  }

  /** In the next turn, so that a caller that tries again without a pause lets loads end. */
  #dropSoon(slot: BatchSlot): void {
    this.#remove(slot);
    setImmediate(() => this.#refuse(slot, 'length'));
  }

  #remove(slot: BatchSlot): void {
    const { definition, id } = slot.address;
    const lane = this.#lanes.get(definition)!;
    const entry = lane.entries.get(id)!;
    this.#gathering.delete(slot);
    lane.ready.delete(slot);
    entry.gathering = undefined;
    if (entry.running === 0) lane.entries.delete(id);
    if (lane.entries.size === 0) this.#lanes.delete(definition);
  }
}

/** The loads of all entries of one declaration. */
interface Lane {
  /** By the address's id. */
  readonly entries: Map<string, EntryLoads>;
  /** Gathering slots that wait for room alone, the oldest first. */
  readonly ready: Set<BatchSlot>;
}

interface EntryLoads {
  /** Loads under way that a gathering slot waits for: those within their soft timeout. */
  running: number;
  gathering: BatchSlot | undefined;
}

/** Joins a slot to one that is not called yet. */
function join(gathering: BatchSlot, slot: BatchSlot): void {
  gathering.join(slot);
  // The reply with this vector has arrived before the load is called, so the load may fill under it. The latest vector is
  // the most likely to stand at the fill.
  if (slot.missed !== undefined) gathering.missed = slot.missed;
}

/** Makes the gathering slot of an entry ready, unless it waits for loads of its entry. */
function promote(lane: Lane, { running, gathering }: EntryLoads): void {
  if (gathering !== undefined && running < LOADS_PER_ENTRY_MAX) lane.ready.add(gathering);
}
