import { clearTimeout, monotonicMs, setTimeout } from '../async/scheduling.js';
import { open } from '../codec/envelope.js';
import type { Address, EntryDefinition } from '../model/entry-definition.js';
import type { Vector } from '../model/vector.js';
import type { Call } from './call.js';
import type { StaleReason } from '../model/outcome.js';
import type { LocalEntry } from './local-tier.js';
import type { LookupResult, Miss, StaleEntry } from './lookup.js';

/** One distinct entry of a batch, and the calls that wait for it. */
export class BatchSlot {
  readonly address: Address;
  /** The miss that the load fills; undefined after a bypass. */
  missed: Miss | undefined;
  /** What this slot's callers get if their load fails, or takes too long, and when it was looked up. */
  #fallback: { readonly entry: StaleEntry; readonly sinceMs: number } | undefined;
  /** The token of the entry's lease, while this process holds it. */
  lease: string | undefined;
  /** Whether the slot loads an entry behind an answer: it waits for no other process. */
  readonly isRefresh: boolean;
  /** The instant, by the monotonic clock, until which this slot waits for loads of other processes. */
  waitsUntilMs: number | undefined;
  /** The first call for this entry; most slots have no other. */
  readonly owner: Call;
  readonly #position: number;
  /** Slots of later turns that looked up the same vector and wait for this slot's load. */
  #joined: BatchSlot[] | undefined;
  #loaded: Loaded | undefined;
  #others: { readonly call: Call; readonly position: number }[] | undefined;
  #onAnswered: (() => void) | undefined;
  /** Whether this slot's own calls have their value: a load may end after a stale value was given in its place. */
  #isGiven = false;
  #patience: NodeJS.Timeout | undefined;

  constructor(address: Address, owner: Call, position: number, isRefresh = false) {
    this.isRefresh = isRefresh;
    this.address = address;
    this.owner = owner;
    this.#position = position;
    owner.distinct++;
  }

  /** Returns a slot for every distinct entry of these calls. */
  static of(calls: readonly Call[]): BatchSlot[] {
    const slots: BatchSlot[] = [];
    // Most turns hold one entry, and most scopes have one entry in a turn: neither needs an id, which is a new string.
    const only = calls.length === 1 && calls[0]!.addresses.length === 1;
    const byPath = only ? undefined : new Map<string, BatchSlot>();
    const byId = only ? undefined : new Map<string, BatchSlot>();
    for (const call of calls) {
      for (let position = 0; position < call.addresses.length; position++) {
        const address = call.addresses[position]!;
        const { scope, entryPath } = address;
        const first = byPath?.get(scope.path);
        let slot = first;
        if (slot !== undefined && slot.address.entryPath !== entryPath) slot = byId?.get(address.id);
        if (slot !== undefined) slot.#waitFor(call, position);
        else {
          slots.push((slot = new BatchSlot(address, call, position)));
          if (first) byId?.set(address.id, slot);
          else byPath?.set(scope.path, slot);
        }
      }
    }
    return slots;
  }

  /** Takes the miss of this slot's own lookup. */
  miss(missed: Miss): void {
    this.missed = missed;
    const { fallback: entry } = missed;
    if (entry !== undefined) this.#fallback = { entry, sinceMs: monotonicMs() };
  }

  /** Adds a slot to those of its entry name. */
  static list(groups: Map<EntryDefinition, BatchSlot[]>, slot: BatchSlot): void {
    const { definition } = slot.address;
    const group = groups.get(definition);
    if (group) group.push(slot);
    else groups.set(definition, [slot]);
  }

  /** The vector of the miss. */
  get vector(): Vector | undefined {
    return this.missed?.vector;
  }

  /** Resolves when every one of these slots has its value or its error from a load, or waits for another process. */
  static answered(slots: readonly BatchSlot[]): Promise<void> {
    let left = slots.length;
    return new Promise((resolve) => {
      const done = () => {
        if (--left === 0) resolve();
      };
      for (const slot of slots) slot.#onAnswered = done;
    });
  }

  /** Whether more than one call waits for this entry. */
  get shared(): boolean {
    return this.#joined !== undefined || (this.#others?.some(({ call }) => call !== this.owner) ?? false);
  }

  /** Whether no caller waits for this entry, which is loaded behind an answer. */
  get isBehind(): boolean {
    return this.isRefresh && this.callers.length === 1;
  }

  /** Whether a call still waits for this entry. */
  get isWanted(): boolean {
    return !this.owner.isSettled || this.callers.some((call) => !call.isSettled);
  }

  /** Every call that waits for this entry, each once: also those of slots that joined this one. */
  get callers(): Call[] {
    const calls = new Set([this.owner]);
    for (const { call } of this.#others ?? []) calls.add(call);
    for (const joined of this.#joined ?? []) for (const call of joined.callers) calls.add(call);
    return [...calls];
  }

  /** Counts the result of the lookup in each call that waits. */
  count(looked: LookupResult): void {
    this.owner.count(this.address, looked);
    if (this.#others === undefined) return;
    let last = this.owner;
    for (const { call } of this.#others) {
      if (call !== last) call.count(this.address, looked);
      last = call;
    }
  }

  /**
   * Gives every call its value: the first call gets the loaded value, and every other call a copy of its own, decoded from
   * `bytes`, since a caller may change its value. Calls share a value without a stored form; of the local tier, they share
   * what is frozen.
   */
  give({ value, bytes, key, local }: Loaded): void {
    if (this.#isGiven) return;
    this.#isGiven = true;
    this.owner.give(this.#position, value);
    if (this.#others === undefined) return;
    let last = this.owner;
    let own = value;
    for (const { call, position } of this.#others) {
      if (call !== last) {
        if (local !== undefined) own = local.give();
        else if (bytes !== undefined) own = decoded(key, bytes);
      }
      last = call;
      call.give(position, own);
    }
  }

  /** Gives a loaded value to every call of this slot and of the slots that joined it. */
  settle(loaded: Loaded): void {
    this.#loaded = loaded;
    this.give(loaded);
    for (const joined of this.#joined ?? []) joined.settle(copied(loaded));
    this.#answered();
  }

  /**
   * Gives every call a stale value that the lookup of this slot found. It is not given to slots that joined this one: their
   * readers may have begun after a bump that the value precedes (docs/protocol.md, rule 20b).
   */
  giveStale(entry: StaleEntry, reason: StaleReason, error?: unknown): void {
    if (this.#isGiven) return;
    this.#isGiven = true;
    const { value, location, local, staleForMs } = entry;
    const staleness = { reason, staleForMs, ...(error !== undefined && { error }) };
    const waiting = [{ call: this.owner, position: this.#position }, ...(this.#others ?? [])];
    let last: Call | undefined;
    let own = value;
    for (const { call, position } of waiting) {
      if (call !== last) {
        call.countStale(this.address, staleness);
        if (last !== undefined) own = local === undefined ? decoded(location.key, entry.bytes) : local.give();
      }
      last = call;
      call.giveStale(position, own, staleness);
    }
    this.#answered();
  }

  /** At that time gives the calls the stale value that their lookup found, if it found one. The load goes on. */
  fallBackAfter(ms: number): void {
    if (this.#fallback !== undefined) this.#patience = setTimeout(() => this.#fallBack('slow'), ms).unref();
  }

  /** Gives the calls what their lookup found, if that is within its grace by now. */
  #fallBack(reason: StaleReason, error?: unknown): void {
    if (this.#fallback === undefined) return;
    const { entry, sinceMs } = this.#fallback;
    const staleForMs = entry.staleForMs + monotonicMs() - sinceMs;
    if (staleForMs <= this.address.definition.staleOnErrorMs) this.giveStale({ ...entry, staleForMs }, reason, error);
  }

  /** Rejects every call of this slot and of the slots that joined it, but for those that have a stale value to fall back on. */
  fail(error: unknown): void {
    this.#fallBack('error', error);
    if (!this.#isGiven) {
      this.owner.fail(error);
      for (const { call } of this.#others ?? []) call.fail(error);
    }
    for (const joined of this.#joined ?? []) joined.fail(error);
    this.#answered();
  }

  /** Gives a later slot this slot's value, at once if it is loaded. */
  join(later: BatchSlot): void {
    if (this.#loaded) later.settle(copied(this.#loaded));
    else (this.#joined ??= []).push(later);
  }

  /**
   * Ends the wait of `answered` for this slot and those that joined it. Idempotent: a load that comes after its timeout
   * answers once more.
   */
  leave(): void {
    this.#onAnswered?.();
    this.#onAnswered = undefined;
    for (const joined of this.#joined ?? []) joined.leave();
  }

  #answered(): void {
    clearTimeout(this.#patience);
    this.leave();
  }

  #waitFor(call: Call, position: number): void {
    const last = this.#others?.at(-1)?.call ?? this.owner;
    if (call !== last) call.distinct++;
    (this.#others ??= []).push({ call, position });
  }
}

/** A loaded value, and its stored form under the entry key that it was sealed for. */
export interface Loaded {
  readonly value: unknown;
  readonly bytes: Buffer | undefined;
  readonly key: string;
  /** The entry of the local tier that the value comes from. */
  readonly local?: LocalEntry | undefined;
}

/** Returns a copy with a value of its own, for a slot that joins the load. */
function copied(loaded: Loaded): Loaded {
  return loaded.bytes === undefined ? loaded : { ...loaded, value: decoded(loaded.key, loaded.bytes) };
}

function decoded(key: string, bytes: Buffer): unknown {
  const opened = open(key, bytes);
  if (!opened.ok) throw new Error(`A value that was just sealed must open, but did not: ${opened.message}`);
  return opened.value;
}
