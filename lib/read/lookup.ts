/**
 * Reads entries: one command per hit, at any depth, for one entry or a batch of them.
 *
 * A process remembers the generations it saw last (`model/scope-registry.ts`). One atomic read asks for the generations
 * of every scope involved, and for each entry under its remembered vector:
 *
 *     MGET g: g:detector=42 g:detector=42/environment=7  e:…:workflows:<the three as remembered>
 *
 * - All generations are as remembered: the entry, or its absence, is the answer.
 * - A generation moved, or was not remembered: the lookup reads once more, under the generations just seen.
 * - A generation is missing: the lookup mints it. No entry can lie under a generation minted now, so that is a miss.
 * - A generation is under quarantine (`model/generation.ts`), or foreign: a bypass, without a mint and without a fill.
 *
 * With a bound, each read also asks for the freshness key (`freshness.ts`), in the same command. If that key shows that
 * the store is not fresh, every entry of the read is a bypass.
 *
 * **Invariant.** A lookup returns an entry only if one atomic read showed it together with the generations in its key.
 * So an entry whose scope was bumped before the read began is never returned, independent of the remembered generations
 * and of other processes: its key names a generation that the store no longer holds.
 *
 * A miss needs no atomicity: a fill relies only on a vector that was read before the load begins (docs/protocol.md,
 * rule 1). So there is no third read: if a generation moved again, the entry is a miss.
 *
 * A crash between two commands leaves at most a minted generation, which expires.
 */
import type { Deadline } from '../async/deadline.js';
import { ABSENT, head, KeyChecksum, open, UNSTORABLE } from '../codec/envelope.js';
import { mismatch } from '../codec/schema.js';
import type { Address } from '../model/entry-definition.js';
import type { EntryLocation } from '../model/entry-location.js';
import {
  formatGeneration,
  GENERATION_RULE,
  type Generation,
  type GenerationState,
  generationState,
  nonce,
} from '../model/generation.js';
import { type EntryKey, entryKey, type FreshnessKey, type GenerationKey } from '../model/key.js';
import type { MissCause, Outcome } from '../model/outcome.js';
import type { RegisteredScope } from '../model/scope-registry.js';
import { generationTtl } from '../model/ttl.js';
import { Vector } from '../model/vector.js';
import type { Clock } from '../ports/clock.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { DecodeFailureEvent } from '../telemetry/events.js';
import { ageOf } from './age.js';
import type { Freshness } from './freshness.js';
import { LookupRound, type RoundState } from './lookup-round.js';
import type { LookupStore } from './split-store.js';
import type { StoreClock } from './store-clock.js';

/** An entry that the store holds. It is decoded once; each further caller gets a value of its own from `bytes`. */
interface StoredEntry<Outcome> {
  readonly outcome: Outcome;
  readonly location: EntryLocation;
  readonly capturedAtMs: number;
  /** ABSENT for a cached absence. */
  readonly value: unknown;
  readonly bytes: Buffer;
}

/** A fresh entry, or a cached absence. `isDue`: to be loaded anew, although it is fresh. */
export type Hit = (StoredEntry<'hit'> | StoredEntry<'absent'>) & { readonly isDue?: true };

/** An entry beyond its TTL. */
export type StaleEntry = StoredEntry<'stale'> & { readonly staleForMs: number };

export type Miss = Extract<Outcome<never>, { readonly outcome: 'miss' }> & {
  /** The first bytes of the value that can't be used, and that a load is to replace. */
  readonly replaced?: Buffer | undefined;
  /** What the caller gets if the load fails, or takes too long. */
  readonly fallback?: StaleEntry | undefined;
};

/** The result of a lookup of one address. */
export type LookupResult = Hit | StaleEntry | Miss | Extract<Outcome<never>, { readonly outcome: 'bypass' }>;

interface LookupOptions {
  readonly store: LookupStore;
  readonly prefix: string;
  readonly schemaVersion: number;
  readonly telemetry: Emitter;
  readonly clock: Clock;
  readonly storeClock: StoreClock;
  /** undefined for a cache without a bound. */
  readonly freshness: Freshness | undefined;
}

/** The state of one call of `read`, which all its commands share. */
interface Pass {
  readonly addresses: readonly Address[];
  readonly deadline: Deadline;
  readonly capturedAtMs: number;
  readonly results: LookupResult[];
  /** Events to emit after all results are there, since a listener may call `lookup` too. */
  readonly failures: DecodeFailureEvent[];
}

export class Lookup {
  readonly #store: LookupStore;
  readonly #prefix: string;
  readonly #schemaVersion: number;
  readonly #telemetry: Emitter;
  readonly #clock: Clock;
  readonly #storeClock: StoreClock;
  readonly #freshness: Freshness | undefined;

  constructor({ store, prefix, schemaVersion, telemetry, clock, storeClock, freshness }: LookupOptions) {
    this.#store = store;
    this.#prefix = prefix;
    this.#schemaVersion = schemaVersion;
    this.#telemetry = telemetry;
    this.#clock = clock;
    this.#storeClock = storeClock;
    this.#freshness = freshness;
  }

  /**
   * Looks up `addresses: [n] -> results: [n]`, same order. Costs one command if every generation is as remembered;
   * otherwise a second one: a read or a mint, or both in parallel for a batch that needs both. Rejects as the store does.
   */
  async read(addresses: readonly Address[], deadline: Deadline): Promise<LookupResult[]> {
    const capturedAtMs = this.#clock.nowMs();
    const round = new LookupRound(addresses);
    let replies;
    // The store's clock tells the age of an entry. Asked once, beside the first read.
    if (hasLife(addresses) && this.#storeClock.at(0) === undefined) {
      [replies] = await Promise.all([this.#ask(round, deadline), this.#storeClock.known(deadline)]);
    } else replies = await this.#ask(round, deadline);
    if (!this.#isFresh(replies, capturedAtMs)) return addresses.map(() => NOT_FRESH);
    round.see(replies);
    const pass: Pass = { addresses, deadline, capturedAtMs, results: [], failures: [] };
    const { results, failures } = pass;
    const unminted: number[] = [];
    const moved: number[] = [];
    let next = round.scopes.length;
    for (let i = 0; i < addresses.length; i++) {
      const address = addresses[i]!;
      const location = round.locations[i];
      const bytes = location === undefined ? null : replies[next++]!;
      const state = round.stateOf(i);
      if (state === 'same') results.push(this.#answer(address, location!, capturedAtMs, bytes, failures, NOT_FILLED));
      else {
        if (state === 'missing') unminted.push(i);
        else if (state === 'moved') moved.push(i);
        // Provisional for `missing` and `moved`, until their second command.
        results.push(bypass(state, address, failures, round.foreignScope(i)));
      }
    }
    if (unminted.length + moved.length > 0) {
      await Promise.all([this.#mint(pass, round, unminted), this.#readAgain(pass, round, moved)]);
    }
    if (hasSchema(addresses)) await checkSchemas(pass);
    for (const failure of failures) this.#telemetry.emit('decodeFailure', failure);
    return results;
  }

  /** Returns the key of the entry under the present generations; undefined if one is missing. Costs one command, and never mints. */
  async locate(address: Address, deadline: Deadline): Promise<EntryKey | undefined> {
    const { scopes } = address;
    const keys = scopes.map((scope) => scope.generationKey);
    const replies = await this.#store.read(keys, deadline);
    const states = replies.map((reply) => (reply === null ? 'missing' : generationState(reply.toString('latin1'))));
    return this.#location(new LookupRound([address]), 0, states)?.key;
  }

  /**
   * Reads the generations of a round, each entry with a known location, and the freshness key, in this order and in one
   * command.
   */
  #ask(round: LookupRound, deadline: Deadline): Promise<readonly (Buffer | null)[]> {
    const keys: (GenerationKey | EntryKey | FreshnessKey)[] = [];
    for (const scope of round.scopes) keys.push(scope.generationKey);
    const locations: (EntryLocation | undefined)[] = [];
    for (let i = 0; i < round.addresses.length; i++) {
      const location = this.#location(round, i, round.sent);
      locations.push(location);
      if (location !== undefined) keys.push(location.key);
    }
    round.locations = locations;
    if (this.#freshness !== undefined) keys.push(this.#freshness.key);
    return this.#store.read(keys, deadline);
  }

  #isFresh(replies: readonly (Buffer | null)[], sentAtMs: number): boolean {
    return this.#freshness === undefined || this.#freshness.check(replies[replies.length - 1]!, sentAtMs);
  }

  /**
   * Mints missing generations. When several processes mint, the first generation stands, and each process gets that
   * one.
   */
  async #mint(pass: Pass, round: LookupRound, unminted: readonly number[]): Promise<void> {
    if (unminted.length === 0) return;
    const missing = new Set<number>();
    let longestTtlMs = 0;
    for (const i of unminted) {
      const { scopes, definition } = pass.addresses[i]!;
      for (let k = 0; k < scopes.length; k++) {
        const position = round.position(i, k);
        if (round.seen[position] === 'missing') missing.add(position);
      }
      longestTtlMs = Math.max(longestTtlMs, definition.storedMs);
    }
    const positions = [...missing];
    const keys = positions.map((position) => round.scopes[position]!.generationKey);
    let replies;
    try {
      const token = formatGeneration(0, nonce());
      replies = await this.#store.mint(keys, token, generationTtl(longestTtlMs), pass.deadline);
    } catch (error) {
      return this.#fail(pass, unminted, 'mint', error as Error);
    }
    const states: GenerationState[] = [...round.seen];
    for (const [i, position] of positions.entries()) {
      const state = replies[i]!;
      round.scopes[position]!.remembered = state === 'foreign' || state === 'quarantined' ? undefined : state;
      states[position] = state;
    }
    for (const i of unminted) {
      const address = pass.addresses[i]!;
      const generations = round.generationsOf(i, states);
      if (generations !== undefined) {
        const vector = new Vector(address, this.#locationOf(address, generations), pass.capturedAtMs);
        pass.results[i] = { outcome: 'miss', vector, cause: 'no_generation' };
      } else {
        const foreign = round.foreignScope(i, states);
        pass.results[i] = bypass(foreign ? 'foreign' : 'quarantined', address, pass.failures, foreign);
      }
    }
  }

  /** Reads once more, under the generations just seen. The result is final: an entry whose generation moves again is a miss. */
  async #readAgain(pass: Pass, first: LookupRound, moved: readonly number[]): Promise<void> {
    if (moved.length === 0) return;
    const capturedAtMs = this.#clock.nowMs();
    const latest = new Map(first.scopes.map((scope, position) => [scope, first.seen[position]!]));
    const before = new Map(first.scopes.map((scope, position) => [scope, first.sent[position]]));
    const round = new LookupRound(
      moved.map((i) => pass.addresses[i]!),
      (scope) => latest.get(scope) as Generation,
    );
    let replies: readonly (Buffer | null)[];
    try {
      replies = await this.#ask(round, pass.deadline);
    } catch (error) {
      return this.#fail(pass, moved, 'read', error as Error);
    }
    if (!this.#isFresh(replies, capturedAtMs)) {
      for (const i of moved) pass.results[i] = NOT_FRESH;
      return;
    }
    round.see(replies);
    for (const [k, i] of moved.entries()) {
      const address = pass.addresses[i]!;
      const bumped = address.scopes.find((scope, own) => {
        const token = before.get(scope);
        return token !== undefined && token !== round.seen[round.position(k, own)];
      })?.path;
      const state = round.stateOf(k);
      if (state === 'same') {
        const bytes = replies[round.scopes.length + k]!;
        const cause = bumped === undefined ? NOT_FILLED : { cause: 'bumped' as const, bumped };
        pass.results[i] = this.#answer(address, round.locations[k]!, capturedAtMs, bytes, pass.failures, cause);
      } else if (state === 'moved') {
        const vector = new Vector(address, this.#location(round, k, round.seen)!, capturedAtMs);
        pass.results[i] = { outcome: 'miss', vector, cause: 'bumped', bumped };
      } else pass.results[i] = bypass(state, address, pass.failures, round.foreignScope(k));
    }
  }

  /** Returns the answer of one atomic read that showed the whole vector: the entry, or a miss with this cause. */
  #answer(
    address: Address,
    location: EntryLocation,
    capturedAtMs: number,
    bytes: Buffer | null,
    failures: DecodeFailureEvent[],
    { cause, bumped }: { readonly cause: MissCause; readonly bumped?: string },
  ): LookupResult {
    if (bytes === null) return { outcome: 'miss', vector: new Vector(address, location, capturedAtMs), cause, bumped };
    const opened = open(location.key, bytes, location.checksum);
    if (!opened.ok) return unusable(new Vector(address, location, capturedAtMs), bytes, failures, opened);
    const { value, life } = opened;
    if (value === UNSTORABLE) {
      return { outcome: 'miss', vector: new Vector(address, location, capturedAtMs), cause: 'unstorable' };
    }
    const outcome = value === ABSENT ? 'absent' : 'hit';
    if (life === undefined) return { outcome, location, capturedAtMs, value, bytes };

    // Without the store's time the entry counts as expired: a cache without a grace reads one of a cache that has it.
    const storeMs = this.#storeClock.at(capturedAtMs);
    const freshForMs = storeMs === undefined ? -Infinity : life.freshUntilMs - storeMs;
    const age = ageOf(address.definition, life, freshForMs);
    if (age === 'fresh') return { outcome, location, capturedAtMs, value, bytes };
    if (age === 'due') return { outcome, location, capturedAtMs, value, bytes, isDue: true };
    const stale: StaleEntry = { outcome: 'stale', location, capturedAtMs, value, bytes, staleForMs: -freshForMs };
    return age === 'stale' ? stale : missOf(address, stale, age === 'fallback' ? stale : undefined);
  }

  /** Makes the entries of a failed second command bypasses; the first command's answers stand. */
  #fail({ addresses, results }: Pass, indexes: readonly number[], operation: 'mint' | 'read', error: Error): void {
    this.#telemetry.emit('storeFailure', { cache: addresses[0]!.definition.cache, operation, error });
    for (const i of indexes) results[i] = STORE_FAILURE;
  }

  /** Returns the location of an entry of a round under `generations`, by position; undefined if one of them is unknown. */
  #location(
    round: LookupRound,
    index: number,
    generations: readonly (GenerationState | undefined)[],
  ): EntryLocation | undefined {
    const address = round.addresses[index]!;
    const { scope, entryPath } = address;
    const last = scope.lastLocation;
    if (last !== undefined && last.entryPath === entryPath && round.matches(index, last.generations, generations)) {
      return last;
    }
    const own = round.generationsOf(index, generations);
    return own && (scope.lastLocation = this.#locationOf(address, own));
  }

  #locationOf({ scope, entryPath }: Address, generations: readonly Generation[]): EntryLocation {
    const vector = generations.join(',');
    const key = entryKey({
      prefix: this.#prefix,
      schemaVersion: this.#schemaVersion,
      scopePath: scope.path,
      entryPath,
      vector,
    });
    return { entryPath, generations, key, checksum: new KeyChecksum(key) };
  }
}

const NOT_FILLED: { readonly cause: MissCause; readonly bumped?: string } = { cause: 'not_filled' };
const STORE_FAILURE: LookupResult = { outcome: 'bypass', reason: 'store_failure' };
const LOST: LookupResult = { outcome: 'bypass', reason: 'generation_lost' };
const UNDER_QUARANTINE: LookupResult = { outcome: 'bypass', reason: 'quarantine' };
const NOT_FRESH: LookupResult = { outcome: 'bypass', reason: 'not_fresh' };

/** Returns a copy of the bytes that tell a value from others: the buffer of the whole reply is not kept for them. */
function tell(bytes: Buffer): Buffer {
  return Buffer.from(head(bytes));
}

/** Returns the result for an address without a vector. `foreign` is its scope with a foreign generation. */
function bypass(
  state: Exclude<RoundState, 'same'>,
  address: Address,
  failures: DecodeFailureEvent[],
  foreign: RegisteredScope | undefined,
): LookupResult {
  if (state === 'quarantined') return UNDER_QUARANTINE;
  if (state !== 'foreign') return LOST;
  const { cache, namespace, name: entry } = address.definition;
  const message =
    `The value at ${foreign!.generationKey} must be a generation (${GENERATION_RULE}, in a string), but is of another ` +
    'form. Reads go to the source, without a fill. Find the program that writes this key; delete the key if no program ' +
    'needs it.';
  failures.push({ cache, namespace, entry, path: address.scope.path, reason: 'foreign_generation', message });
  return { outcome: 'bypass', reason: 'foreign_generation' };
}

function unusable(
  vector: Vector,
  bytes: Buffer,
  failures: DecodeFailureEvent[],
  { reason, message }: { readonly reason: string; readonly message: string },
): Miss {
  const { definition, scope } = Vector.addressOf(vector);
  const { cache, namespace, name: entry } = definition;
  failures.push({ cache, namespace, entry, path: scope.path, reason, message });
  return { outcome: 'miss', vector, cause: 'undecodable', replaced: tell(bytes) };
}

/** Returns the miss of an entry that a load is to replace. */
export function missOf(address: Address, entry: Hit | StaleEntry, fallback?: StaleEntry): Miss {
  const vector = new Vector(address, entry.location, entry.capturedAtMs);
  return { outcome: 'miss', vector, cause: 'not_filled', replaced: tell(entry.bytes), fallback };
}

/** Checks hits against the schema of their entry, if it has one. */
async function checkSchemas({ addresses, results, failures, deadline }: Pass): Promise<void> {
  for (let i = 0; i < results.length; i++) {
    const result = results[i]!;
    const { schema } = addresses[i]!.definition;
    if (schema === undefined || result.outcome === 'bypass' || result.outcome === 'absent') continue;
    const found = result.outcome === 'miss' ? result.fallback : result;
    if (found === undefined || found.value === ABSENT) continue;
    const issue = await deadline.race(mismatch(schema, found.value), (cause) => cause);
    if (issue === undefined) continue;
    const vector = new Vector(addresses[i]!, found.location, found.capturedAtMs);
    results[i] = unusable(vector, found.bytes, failures, { reason: 'schema', message: issue });
  }
}

function hasLife(addresses: readonly Address[]): boolean {
  for (const { definition } of addresses) if (definition.hasLife) return true;
  return false;
}

function hasSchema(addresses: readonly Address[]): boolean {
  for (const { definition } of addresses) if (definition.schema !== undefined) return true;
  return false;
}
