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
 * With a local tier (`local-tier.ts`) a read leaves out the keys of entries that are there; all else is the same.
 *
 * A miss needs no atomicity: a fill relies only on a vector that was read before the load begins (docs/protocol.md,
 * rule 1). So there is no third read: if a generation moved again, the entry is a miss.
 *
 * A crash between two commands leaves at most a minted generation, which expires.
 */
import type { Deadline } from '../async/deadline.js';
import { ABSENT, head, KeyChecksum, type Life, open, UNSTORABLE } from '../codec/envelope.js';
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
import type { DecodeFailureEvent, LocalUnverifiedReason } from '../telemetry/events.js';
import { ageOf } from './age.js';
import type { Freshness } from './freshness.js';
import type { LocalEntry, LocalTier } from './local-tier.js';
import { LookupRound, type RoundState } from './lookup-round.js';
import type { LookupStore } from './split-store.js';
import type { StoreClock } from './store-clock.js';

/**
 * An entry that the store holds, or the local tier. It is decoded once; each further caller gets a value of its own from
 * `bytes`, or from `local`.
 */
interface StoredEntry<Outcome> {
  readonly outcome: Outcome;
  readonly location: EntryLocation;
  readonly capturedAtMs: number;
  /** ABSENT for a cached absence. */
  readonly value: unknown;
  readonly bytes: Buffer;
  /** The entry of the local tier that answered. */
  readonly local?: LocalEntry;
  /** Of an entry that the store answered, and that may enter the local tier. */
  readonly life?: Life;
}

/** A fresh entry, or a cached absence. `isDue`: to be loaded anew, although it is fresh. */
export type Hit = (StoredEntry<'hit'> | StoredEntry<'absent'>) & { readonly isDue?: boolean };

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
  /** undefined for a cache without a local tier. */
  readonly local: LocalTier | undefined;
  /**
   * Hears of each read of generations, before its command is sent; undefined for a cache that neither tracks them nor answers in
   * outages.
   */
  readonly tracking: GenerationTracking | undefined;
}

interface GenerationTracking {
  /** Returns what takes the reply, and then that of a mint: `scopes: [n] -> states: [n]`. */
  ask(scopes: readonly RegisteredScope[]): (states: readonly GenerationState[]) => void;
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
  readonly #local: LocalTier | undefined;
  readonly #tracking: GenerationTracking | undefined;

  constructor(options: LookupOptions) {
    const { store, prefix, schemaVersion, telemetry, clock, storeClock, freshness, local, tracking } = options;
    this.#store = store;
    this.#prefix = prefix;
    this.#schemaVersion = schemaVersion;
    this.#telemetry = telemetry;
    this.#clock = clock;
    this.#storeClock = storeClock;
    this.#freshness = freshness;
    this.#local = local;
    this.#tracking = tracking;
  }

  /**
   * Looks up `addresses: [n] -> results: [n]`, same order. Costs one command if every generation is as remembered;
   * otherwise a second one: a read or a mint, or both in parallel for a batch that needs both. Rejects as the store does.
   */
  async read(addresses: readonly Address[], deadline: Deadline): Promise<LookupResult[]> {
    const capturedAtMs = this.#clock.nowMs();
    const local = this.#local;
    const deletes = local?.deletes;
    const round = new LookupRound(addresses);
    let replies;
    // The store's clock tells the age of an entry. Asked beside the first read; with a local tier once a minute.
    try {
      if (hasLife(addresses) && this.#storeClock.isDue(capturedAtMs)) {
        [replies] = await Promise.all([this.#ask(round, deadline, capturedAtMs), this.#storeClock.known(deadline)]);
      } else replies = await this.#ask(round, deadline, capturedAtMs);
    } catch (error) {
      local?.unverified(round, 'store_failure');
      throw error;
    }
    if (!this.#isFresh(replies, capturedAtMs)) {
      local?.unverified(round, 'not_fresh');
      return addresses.map(() => NOT_FRESH);
    }
    this.#see(round, replies);
    const pass: Pass = { addresses, deadline, capturedAtMs, results: [], failures: [] };
    const { results, failures } = pass;
    const unminted: number[] = [];
    const moved: number[] = [];
    let next = round.scopes.length;
    const latestMs = round.held && this.#latestMs();
    for (let i = 0; i < addresses.length; i++) {
      const address = addresses[i]!;
      const location = round.locations[i];
      const held = round.held?.[i];
      const bytes = location === undefined || held !== undefined ? null : replies[next++]!;
      const state = held === undefined ? round.stateOf(i) : this.#verify(round, i, held, latestMs!);
      if (state === 'same') {
        results.push(
          held === undefined
            ? this.#answer(address, location!, capturedAtMs, bytes, failures, NOT_FILLED)
            : this.#answerLocally(address, location!, capturedAtMs, held, latestMs!),
        );
      } else {
        if (state === 'missing') unminted.push(i);
        else if (state === 'moved' || state === 'expired') moved.push(i);
        // Provisional for `missing`, `moved` and `expired`, until their second command.
        results.push(bypass(state, address, failures, round.foreignScope(i)));
      }
    }
    if (unminted.length + moved.length > 0) {
      await Promise.all([this.#mint(pass, round, unminted), this.#readAgain(pass, round, moved)]);
    }
    if (hasSchema(addresses)) await checkSchemas(pass);
    if (local !== undefined) enterAll(local, results, deletes!);
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
   * Reads the generations of a round, each entry with a known location that the local tier does not hold, and the
   * freshness key, in this order and in one command.
   */
  #ask(round: LookupRound, deadline: Deadline, nowMs: number): Promise<readonly (Buffer | null)[]> {
    const keys: (GenerationKey | EntryKey | FreshnessKey)[] = [];
    for (const scope of round.scopes) keys.push(scope.generationKey);
    const locations: (EntryLocation | undefined)[] = [];
    for (let i = 0; i < round.addresses.length; i++) locations.push(this.#location(round, i, round.sent));
    round.locations = locations;
    if (this.#local !== undefined) round.held = this.#held(this.#local, round, nowMs);
    for (let i = 0; i < locations.length; i++) {
      if (locations[i] !== undefined && round.held?.[i] === undefined) keys.push(locations[i]!.key);
    }
    if (this.#freshness !== undefined) keys.push(this.#freshness.key);
    round.verify = this.#tracking?.ask(round.scopes);
    return this.#store.read(keys, deadline);
  }

  /**
   * Finds what the local tier holds of the entries that a round asks for. Drops what is past its TTL; where that may be served
   * in an outage, once the store has answered.
   */
  #held(local: LocalTier, round: LookupRound, nowMs: number): (LocalEntry | undefined)[] {
    const held: (LocalEntry | undefined)[] = [];
    const latestMs = this.#storeClock.latestAt(nowMs);
    for (let i = 0; i < round.locations.length; i++) {
      const location = round.locations[i];
      let entry = location && local.get(location.key);
      if (entry !== undefined && entry.life.freshUntilMs <= latestMs) {
        if (local.keepsExpired) (round.expired ??= []).push({ index: i, entry });
        else local.unused(round.addresses[i]!.definition, entry, 'expired');
        entry = undefined;
      }
      held.push(entry);
    }
    return held;
  }

  /** Takes the reply to a round. */
  #see(round: LookupRound, replies: readonly (Buffer | null)[]): void {
    round.see(replies);
    round.verify?.(round.seen);
    if (round.expired === undefined) return;
    for (const { index, entry } of round.expired) {
      this.#local!.unused(round.addresses[index]!.definition, entry, 'expired');
    }
  }

  /** The latest that the store's clock can be by now. */
  #latestMs(): number {
    return this.#storeClock.latestAt(this.#clock.nowMs());
  }

  /** Returns the state of an address that the local tier holds, and drops what can't be used; `expired` meanwhile: to be read again. */
  #verify(round: LookupRound, index: number, held: LocalEntry, latestMs: number): RoundState | 'expired' {
    let state: RoundState | 'expired' = round.stateOf(index);
    if (state === 'same') {
      if (held.life.freshUntilMs > latestMs) return state;
      state = 'expired';
    }
    this.#local!.unused(round.addresses[index]!.definition, held, UNVERIFIED[state]);
    return state;
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
    round.verify?.(states);
    for (const i of unminted) {
      const address = pass.addresses[i]!;
      const generations = round.generationsOf(i, states);
      if (generations !== undefined) {
        const vector = new Vector(address, this.locationOf(address, generations), pass.capturedAtMs);
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
      replies = await this.#ask(round, pass.deadline, capturedAtMs);
    } catch (error) {
      this.#local?.unverified(round, 'store_failure');
      return this.#fail(pass, moved, 'read', error as Error);
    }
    if (!this.#isFresh(replies, capturedAtMs)) {
      this.#local?.unverified(round, 'not_fresh');
      for (const i of moved) pass.results[i] = NOT_FRESH;
      return;
    }
    this.#see(round, replies);
    let next = round.scopes.length;
    const latestMs = round.held && this.#latestMs();
    for (const [k, i] of moved.entries()) {
      const address = pass.addresses[i]!;
      const bumped = address.scopes.find((scope, own) => {
        const token = before.get(scope);
        return token !== undefined && token !== round.seen[round.position(k, own)];
      })?.path;
      const held = round.held?.[k];
      const bytes = held === undefined ? replies[next++]! : null;
      const state = held === undefined ? round.stateOf(k) : this.#verify(round, k, held, latestMs!);
      if (state === 'same' && held !== undefined) {
        pass.results[i] = this.#answerLocally(address, round.locations[k]!, capturedAtMs, held, latestMs!);
      } else if (state === 'same' || state === 'expired') {
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
    // A value that tells no age could outlive its TTL in the local tier.
    if (life === undefined) return { outcome, location, capturedAtMs, value, bytes };

    // Without the store's time the entry counts as expired: a cache without a grace reads one of a cache that has it.
    const storeMs = this.#storeClock.at(capturedAtMs);
    const freshForMs = storeMs === undefined ? -Infinity : life.freshUntilMs - storeMs;
    const age = ageOf(address.definition, life, freshForMs);
    if (age === 'fresh') {
      const hit = { outcome, location, capturedAtMs, value, bytes } as const;
      return this.#local === undefined ? hit : { ...hit, life };
    }
    if (age === 'due') return { outcome, location, capturedAtMs, value, bytes, isDue: true };
    const stale: StaleEntry = { outcome: 'stale', location, capturedAtMs, value, bytes, staleForMs: -freshForMs };
    return age === 'stale' ? stale : missOf(address, stale, age === 'fallback' ? stale : undefined);
  }

  /** Returns the answer of one atomic read that showed the whole vector, from the local tier. */
  #answerLocally(
    address: Address,
    location: EntryLocation,
    capturedAtMs: number,
    held: LocalEntry,
    latestMs: number,
  ): Hit {
    const value = held.give();
    const isDue = ageOf(address.definition, held.life, held.life.freshUntilMs - latestMs) === 'due';
    // Another process may have loaded it anew: the next read asks the store.
    if (isDue) this.#local!.drop(held.key);
    return new LocalHit(location, capturedAtMs, value, held, isDue);
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
    // The old vector does not come back, as long as the store does not go back in time.
    if (last !== undefined && last.entryPath === entryPath) this.#local?.drop(last.key);
    const own = round.generationsOf(index, generations);
    return own && (scope.lastLocation = this.locationOf(address, own));
  }

  /** Returns the location of an address's entry under these generations of its scopes. */
  locationOf(
    { scope, entryPath }: Pick<Address, 'scope' | 'entryPath'>,
    generations: readonly Generation[],
  ): EntryLocation {
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

/** A hit of the local tier. */
export class LocalHit {
  readonly outcome: 'hit' | 'absent';
  readonly location: EntryLocation;
  readonly capturedAtMs: number;
  readonly value: unknown;
  readonly local: LocalEntry;
  readonly isDue: boolean;

  constructor(location: EntryLocation, capturedAtMs: number, value: unknown, local: LocalEntry, isDue: boolean) {
    this.outcome = value === ABSENT ? 'absent' : 'hit';
    this.location = location;
    this.capturedAtMs = capturedAtMs;
    this.value = value;
    this.local = local;
    this.isDue = isDue;
  }

  get bytes(): Buffer {
    return this.local.bytes;
  }
}

/** Why an entry of the local tier is not used, by the state of its address. */
const UNVERIFIED = {
  moved: 'bumped',
  missing: 'no_generation',
  quarantined: 'quarantine',
  foreign: 'foreign_generation',
  expired: 'expired',
} as const satisfies Record<Exclude<RoundState, 'same'> | 'expired', LocalUnverifiedReason>;

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
  state: Exclude<RoundState, 'same'> | 'expired',
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
    // Checked when it entered.
    if (result.outcome === 'hit' && result.local !== undefined) continue;
    const found = result.outcome === 'miss' ? result.fallback : result;
    if (found === undefined || found.value === ABSENT) continue;
    const issue = await deadline.race(mismatch(schema, found.value), (cause) => cause);
    if (issue === undefined) continue;
    const vector = new Vector(addresses[i]!, found.location, found.capturedAtMs);
    results[i] = unusable(vector, found.bytes, failures, { reason: 'schema', message: issue });
  }
}

/** Lets what the store answered enter the local tier. */
function enterAll(local: LocalTier, results: readonly LookupResult[], deletes: number): void {
  for (const result of results) {
    if ((result.outcome !== 'hit' && result.outcome !== 'absent') || result.life === undefined) continue;
    local.enter(result.location.key, result.bytes, result.value, result.life, deletes);
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
