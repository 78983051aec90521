import { type Address, EntryDefinition } from '../model/entry-definition.js';
import { ABSENT, open } from '../codec/envelope.js';
import type { Attributes, ReadEvent } from '../telemetry/events.js';
import type { BypassReason } from '../model/outcome.js';
import type { LookupResult } from './lookup.js';
import type { Vector } from '../model/vector.js';

/**
 * One call of `fetch` or `fetchMany`: what it asked for, what came of it, and who waits.
 * It settles as soon as all its entries are there, or with the first error.
 */
export class Call {
  readonly definition: EntryDefinition;
  readonly addresses: readonly Address[];
  readonly attributes: Attributes | undefined;
  readonly stack: string | undefined;
  /** `addresses: [n] -> [n]`, ABSENT where there is no row. */
  readonly answer: Promise<unknown[]>;

  /** Distinct entries. */
  distinct = 0;
  hits = 0;
  absentHits = 0;
  bypasses = 0;
  bypassReason: BypassReason | undefined;
  missed: ReadEvent['missed'][number][] = NONE;
  /** Entries that were loaded for this call, not for another that asked for them before. */
  loads = 0;

  readonly #settled: (call: Call) => void;
  readonly #values: unknown[];
  #pending: number;
  #resolve!: (values: unknown[]) => void;
  #reject!: (error: unknown) => void;

  /** `settled` is called once, just before the answer settles. */
  constructor(
    definition: EntryDefinition,
    addresses: readonly Address[],
    attributes: Attributes | undefined,
    stack: string | undefined,
    settled: (call: Call) => void,
  ) {
    this.definition = definition;
    this.addresses = addresses;
    this.attributes = attributes;
    this.stack = stack;
    this.#settled = settled;
    this.#values = new Array<unknown>(addresses.length);
    this.#pending = addresses.length;
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  count(address: Address, looked: LookupResult): void {
    if (looked.outcome === 'found') {
      if (looked.value === ABSENT) this.absentHits++;
      else this.hits++;
    } else if (looked.outcome === 'miss') {
      if (this.missed === NONE) this.missed = [];
      this.missed.push({ path: address.scope.path, cause: looked.cause, bumped: looked.bumped });
    } else {
      this.bypasses++;
      this.bypassReason = looked.reason;
    }
  }

  give(position: number, value: unknown): void {
    if (this.#pending <= 0) return;
    this.#values[position] = value;
    if (--this.#pending > 0) return;
    this.#settled(this);
    this.#resolve(this.#values);
  }

  fail(error: unknown): void {
    if (this.#pending <= 0) return;
    this.#pending = -1;
    this.#settled(this);
    this.#reject(error);
  }
}

/** Shared by the calls that miss nothing. */
const NONE: ReadEvent['missed'][number][] = [];

/** One distinct entry of a turn, and the calls that wait for it. */
export class BatchSlot {
  readonly address: Address;
  /** Set when the lookup missed: what a fill needs. */
  vector: Vector | undefined;
  /** Slots of later turns that looked up the same vector and wait for this one's load. */
  joined: BatchSlot[] | undefined;
  /** What the load gave, until its fill has settled. */
  loaded: Loaded | undefined;
  /** The call that asked first; most slots have no other. */
  readonly owner: Call;
  readonly #position: number;
  #others: { readonly call: Call; readonly position: number }[] | undefined;

  constructor(address: Address, owner: Call, position: number) {
    this.address = address;
    this.owner = owner;
    this.#position = position;
    owner.distinct++;
  }

  /** Every distinct entry that these calls ask for. */
  static of(calls: readonly Call[]): BatchSlot[] {
    const slots: BatchSlot[] = [];
    // Most turns ask for one entry, and most scopes have one entry in a turn, found without making a key.
    const only = calls.length === 1 && calls[0]!.addresses.length === 1;
    const byPath = only ? undefined : new Map<string, BatchSlot>();
    const byId = only ? undefined : new Map<string, BatchSlot>();
    for (const call of calls) {
      for (let position = 0; position < call.addresses.length; position++) {
        const address = call.addresses[position]!;
        const { scope, entryPath } = address;
        const first = byPath?.get(scope.path);
        let slot = first;
        if (slot !== undefined && slot.address.entryPath !== entryPath)
          slot = byId?.get(EntryDefinition.addressId(address));
        if (slot !== undefined) slot.#waitFor(call, position);
        else {
          slots.push((slot = new BatchSlot(address, call, position)));
          if (first) byId?.set(EntryDefinition.addressId(address), slot);
          else byPath?.set(scope.path, slot);
        }
      }
    }
    return slots;
  }

  /** Whether more than one call waits. */
  get shared(): boolean {
    return this.#others?.some(({ call }) => call !== this.owner) ?? false;
  }

  /** Tells each call that waits what its lookup came to. */
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
   * Gives every call its value: the first one the value at hand, the others, which may change theirs, one decoded
   * for them. A value that has no stored form is shared.
   */
  give({ value, bytes, key }: Loaded): void {
    this.owner.give(this.#position, value);
    if (this.#others === undefined) return;
    let last = this.owner;
    let own = value;
    for (const { call, position } of this.#others) {
      if (call !== last && bytes !== undefined) own = decoded(key, bytes);
      last = call;
      call.give(position, own);
    }
  }

  fail(error: unknown): void {
    this.owner.fail(error);
    for (const { call } of this.#others ?? []) call.fail(error);
  }

  #waitFor(call: Call, position: number): void {
    const last = this.#others?.at(-1)?.call ?? this.owner;
    if (call !== last) call.distinct++;
    (this.#others ??= []).push({ call, position });
  }
}

/** A value at hand, and its stored form under the entry key it was sealed for. */
export interface Loaded {
  readonly value: unknown;
  readonly bytes: Buffer | undefined;
  readonly key: string;
}

/** The same, with a value of its own for whoever joins. */
export function copied(loaded: Loaded): Loaded {
  return loaded.bytes === undefined ? loaded : { ...loaded, value: decoded(loaded.key, loaded.bytes) };
}

function decoded(key: string, bytes: Buffer): unknown {
  const opened = open(key, bytes);
  if (!opened.ok) throw new Error(`A value that was just sealed must open: ${opened.message}`);
  return opened.value;
}
