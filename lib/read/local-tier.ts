/**
 * Decoded values in this process, in front of the store (`local`; docs/protocol.md, rule 14a).
 *
 * A value lies under its entry's key, which contains its vector. A lookup asks the store for the generations as ever, and
 * leaves out the keys of entries that are here: if the reply shows the generations of such a key, the value here is the
 * answer, since the store would hold this value, or another one loaded under the same vector. A generation that moved
 * makes another key.
 *
 * **Invariant.** A value is used only with a reply, to a command sent after the read began, that shows its whole vector;
 * and only before the end of its TTL, by the latest that the store's clock can be. So the tier is as exact as the store on
 * each step of the ladder, and in an outage of the store it answers nothing, unless its owner set a grace for that
 * (`outage-answers.ts`).
 *
 * Values without an instant of expiry do not enter: processes without a tier write them. So caches with a tier write that
 * instant into every envelope.
 */
import { LRUCache } from 'lru-cache';
import { type Life, seal } from '../codec/envelope.js';
import { SharedValue } from '../codec/shared-value.js';
import type { Address, EntryDefinition } from '../model/entry-definition.js';
import type { EntryLocation } from '../model/entry-location.js';
import type { EntryKey } from '../model/key.js';
import type { RegisteredScope } from '../model/scope-registry.js';
import type { Watch } from '../model/watch.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { LocalUnverifiedReason } from '../telemetry/events.js';

export interface LocalLimits {
  readonly maxEntries?: number | undefined;
  readonly maxBytes?: number | undefined;
  readonly staleOnOutageMs?: number | undefined;
}

/** About what an entry takes beside its key and its value, in bytes. */
const ENTRY_BYTES = 400;
/** About what a decoded value takes, by the bytes of its stored form. */
const DECODED_BYTES = 2;

/** A value in the tier. */
export class LocalEntry {
  // What a hit without a round trip looks at comes first: it lies in one line of the processor's cache, or two.
  /** Number of values that had entered the tier when this one was used last. */
  usedAt = -1;
  /** The step as of which all generations in the key were verified (`local-reader.ts`); -1 once the tier has dropped it. */
  verifiedAt = -1;
  /** Of `verifiedAt`: what says for how long. */
  watch: Watch | undefined;
  definition: EntryDefinition | undefined;
  /** Of `verifiedAt`: the end of the TTL, in the small numbers of `local-reader.ts`. */
  untilTick = 0;
  /** The value, if all readers get the same; undefined if not, or not known yet. */
  shared: unknown;
  readonly key: EntryKey;
  readonly life: Life;
  readonly freshUntilMs: number;
  /** The location, and the scope, that refer to this entry. */
  location: EntryLocation | undefined;
  scope: RegisteredScope | undefined;
  readonly #shared: SharedValue;

  constructor(key: EntryKey, life: Life, shared: SharedValue) {
    this.key = key;
    this.life = life;
    this.freshUntilMs = life.freshUntilMs;
    this.#shared = shared;
  }

  /** Returns the value for one more reader: shared and frozen, or a copy. */
  give(): unknown {
    const value = this.#shared.give();
    this.shared = this.#shared.shared;
    return value;
  }

  /** The stored form. It is made anew, since few reads need it. */
  get bytes(): Buffer {
    return seal(this.key, this.give(), this.life);
  }
}

/** What the tier holds of the addresses of a read, in their order. */
interface HeldEntries {
  readonly addresses: readonly Address[];
  readonly held: readonly (LocalEntry | undefined)[] | undefined;
}

export class LocalTier {
  readonly #cache: string;
  readonly #telemetry: Emitter;
  readonly #entries: LRUCache<EntryKey, LocalEntry>;
  #deletes = 0;
  /** Number of values that have entered. */
  entered = 0;
  /** Whether a value beyond its TTL may be of use. */
  readonly keepsExpired: boolean;
  #closed = false;

  constructor({ cache, telemetry, limits }: { cache: string; telemetry: Emitter; limits: LocalLimits }) {
    this.#cache = cache;
    this.#telemetry = telemetry;
    const { maxEntries, maxBytes = Number.MAX_SAFE_INTEGER, staleOnOutageMs = 0 } = limits;
    this.keepsExpired = staleOnOutageMs > 0;
    this.#entries = new LRUCache({
      ...(maxEntries !== undefined && { max: maxEntries }),
      maxSize: maxBytes,
      dispose: (entry) => {
        entry.verifiedAt = -1;
        const { location, scope } = entry;
        if (location !== undefined) location.held = undefined;
        if (scope?.answer === entry) scope.answer = undefined;
      },
      // A listener may look up in turn: only after the eviction is the cache itself again.
      disposeAfter: (_entry, _key, reason) => {
        if (reason === 'evict') this.#telemetry.emit('localEviction', { cache: this.#cache });
      },
    });
  }

  get size(): { readonly entries: number; readonly bytes: number } {
    return { entries: this.#entries.size, bytes: this.#entries.calculatedSize };
  }

  /** Number of deletes so far: a reply to a command that was sent before a delete brings nothing back. */
  get deletes(): number {
    return this.#deletes;
  }

  get(key: EntryKey): LocalEntry | undefined {
    return this.#entries.get(key);
  }

  /**
   * As `get`, without a search for a value that was found at this location before. Only a value that enters evicts another
   * one, so between two of them one use of a value is as good as many.
   */
  at(location: EntryLocation): LocalEntry | undefined {
    const held = location.held as LocalEntry | undefined;
    return held !== undefined && held.usedAt === this.entered ? held : this.#find(location);
  }

  #find(location: EntryLocation): LocalEntry | undefined {
    const entry = this.#entries.get(location.key);
    if (entry === undefined) return undefined;
    entry.usedAt = this.entered;
    if (entry.location !== location) {
      if (entry.location !== undefined) entry.location.held = undefined;
      entry.location = location;
      location.held = entry;
    }
    return entry;
  }

  /**
   * Takes what a read found in the store and decoded, and freezes what all readers share of `value`. `deletes`: as of
   * before the read. A value that is here by now stays: a fill was later.
   */
  enter(key: EntryKey, bytes: Buffer, value: unknown, life: Life, deletes: number): void {
    if (this.#deletes !== deletes || this.#entries.has(key)) return;
    this.#set(new LocalEntry(key, life, SharedValue.of(key, bytes, value)), bytes.length);
  }

  /** Takes what this process stored, by a command that was sent after so many `deletes`. */
  filled(key: EntryKey, bytes: Buffer, life: Life, deletes: number): void {
    if (this.#deletes !== deletes) return;
    this.#set(new LocalEntry(key, life, new SharedValue(key, bytes)), bytes.length);
  }

  /** Drops what the store holds no longer. */
  delete(keys: readonly EntryKey[]): void {
    this.#deletes++;
    for (const key of keys) this.#entries.delete(key);
  }

  /** Drops a value that is of no more use: the next read asks the store. */
  drop(key: EntryKey): void {
    this.#entries.delete(key);
  }

  /** Drops a value that can't be used any more, and counts it. */
  unused(definition: EntryDefinition, { key }: LocalEntry, reason: LocalUnverifiedReason): void {
    this.#entries.delete(key);
    this.#count(definition, reason);
  }

  /** Counts what is `held` of a read that showed no generations. It stays. */
  unverified({ addresses, held = [] }: HeldEntries, reason: LocalUnverifiedReason): void {
    for (const [i, entry] of held.entries()) if (entry !== undefined) this.#count(addresses[i]!.definition, reason);
  }

  /** Frees the memory. */
  close(): void {
    this.#closed = true;
    this.#entries.clear();
  }

  #count({ cache, namespace, name: entry }: EntryDefinition, reason: LocalUnverifiedReason): void {
    this.#telemetry.emit('localUnverified', { cache, namespace, entry, reason });
  }

  #set(entry: LocalEntry, bytes: number): void {
    if (this.#closed) return;
    this.entered++;
    this.#entries.set(entry.key, entry, { size: ENTRY_BYTES + entry.key.length + DECODED_BYTES * bytes });
  }
}
