/**
 * Reads entries: one command per hit, at any depth, for one entry or a batch of them.
 *
 * A process remembers the generations it saw last (`scope.ts`). One atomic read asks for the generations of every
 * scope involved and for each entry under the vector as remembered:
 *
 *     MGET g: g:detector=42 g:detector=42/environment=7  e:…:workflows:<the three as remembered>
 *
 * - All as remembered: the entry, or its absence, is the answer.
 * - A generation moved, or was not remembered: ask once more, under the generations just seen.
 * - A generation is missing: mint it. What lies under a generation minted now can't exist, so that is a miss.
 * - A generation is under quarantine (`quarantine.ts`), or foreign: a bypass. Nothing is minted, and nothing filled.
 *
 * With a bound, each read also asks for the freshness key (`freshness.ts`), in the same command. A read that finds
 * nobody to vouch makes a bypass of all that it was to answer.
 *
 * **Invariant.** An entry is returned only if one atomic read showed it together with the generations in its key.
 * So whatever this process believed before, or others did in between, an entry whose scope was bumped before the
 * read began is never returned: its key names a generation that is no more.
 *
 * A miss needs no atomicity: its vector was read before the load begins, which is all that a fill relies on. So when
 * generations keep moving, the second answer is final, and at worst a miss.
 *
 * Crashes in between leave at most a minted generation, which expires.
 */
import type { Clock } from '../ports/clock.js';
import { collect, compare, index, see, type GenerationState, stands } from './lookup-round.js';
import type { Deadline } from '../async/deadline.js';
import type { Address } from '../model/entry-definition.js';
import { ABSENT, open } from '../codec/envelope.js';
import type { DecodeFailureEvent } from '../telemetry/events.js';
import type { MissCause } from '../model/outcome.js';
import type { Freshness } from './freshness.js';
import { GENERATION_RULE, type Generation, generation, nonce, parseGeneration } from '../model/generation.js';
import { type EntryKey, entryKey, type FreshnessKey, type GenerationKey } from '../model/key.js';
import type { Outcome } from '../model/outcome.js';
import { mismatch } from '../codec/schema.js';
import type { EntryLocation, Scope } from '../model/scope.js';
import type { Store } from '../ports/store.js';
import type { Emitter } from '../telemetry/emitter.js';
import { generationTtl } from '../model/ttl.js';
import { Vector } from '../model/vector.js';

/** What a lookup of one address came to. */
export type LookupResult =
  /** Decoded once; `bytes` let each further caller have a value of its own. */
  | {
      readonly outcome: 'found';
      readonly placed: EntryLocation;
      readonly capturedAtMs: number;
      readonly value: unknown;
      readonly bytes: Buffer;
    }
  | Exclude<Outcome<never>, { readonly outcome: 'hit' | 'absent' }>;

export class Lookup {
  readonly #store: Store;
  readonly #prefix: string;
  readonly #schemaVersion: number;
  readonly #telemetry: Emitter;
  readonly #clock: Clock;
  /** undefined: no bound. */
  readonly #freshness: Freshness | undefined;

  constructor(
    store: Store,
    prefix: string,
    schemaVersion: number,
    telemetry: Emitter,
    clock: Clock,
    freshness?: Freshness,
  ) {
    this.#store = store;
    this.#prefix = prefix;
    this.#schemaVersion = schemaVersion;
    this.#telemetry = telemetry;
    this.#clock = clock;
    this.#freshness = freshness;
  }

  /**
   * `addresses: [n] -> [n]`. One command where every generation is as remembered; otherwise a second: a read, a mint,
   * or, where some of the batch need one and some the other, both at once. Rejects as the store does.
   */
  async read(addresses: readonly Address[], deadline: Deadline): Promise<LookupResult[]> {
    const capturedAtMs = this.#clock.nowMs();
    const scopes = collect(addresses);
    const sent: (Generation | undefined)[] = [];
    const keys: (GenerationKey | EntryKey | FreshnessKey)[] = [];
    for (const scope of scopes) {
      sent.push(scope.remembered);
      keys.push(scope.generationKey);
    }
    const guesses: (EntryLocation | undefined)[] = [];
    for (const address of addresses) {
      const placed = this.#place(address, sent);
      guesses.push(placed);
      if (placed !== undefined) keys.push(placed.key);
    }
    const freshness = this.#freshness;
    if (freshness !== undefined) keys.push(freshness.key);
    const replies = await this.#store.read(keys, deadline);

    if (freshness !== undefined && !freshness.vouches(replies[keys.length - 1]!, capturedAtMs)) {
      return addresses.map(() => NOT_FRESH);
    }
    index(scopes);
    const seen: GenerationState[] = [];
    for (let i = 0; i < scopes.length; i++) seen.push(see(scopes[i]!, replies[i]!, sent[i]));
    const results: LookupResult[] = [];
    // Told when all is judged: a listener may look up too, and indexes belong to one lookup at a time.
    const failures: DecodeFailureEvent[] = [];
    const unminted: number[] = [];
    const moved: number[] = [];
    let next = scopes.length;
    for (let i = 0; i < addresses.length; i++) {
      const address = addresses[i]!;
      const guess = guesses[i];
      const bytes = guess === undefined ? null : replies[next++]!;
      const state = compare(address.scopes, seen, sent);
      if (state === 'same') results.push(this.#answer(address, guess!, capturedAtMs, bytes, failures, 'not_filled'));
      else {
        if (state === 'missing') unminted.push(i);
        else if (state === 'moved') moved.push(i);
        // For the others, until their second command has said more.
        results.push(bypass(state, address, failures, (scope) => seen[scope.index]!));
      }
    }
    if (unminted.length + moved.length > 0) {
      const latest = new Map(scopes.map((scope, i) => [scope, seen[i]!]));
      const remembered = new Map(scopes.map((scope, i) => [scope, sent[i]]));
      await Promise.all([
        this.#mint(addresses, unminted, latest, results, failures, capturedAtMs, deadline),
        this.#readAgain(addresses, moved, latest, remembered, results, failures, deadline),
      ]);
    }
    if (hasSchema(addresses)) await this.#check(addresses, results, failures, deadline);
    for (const failure of failures) this.#telemetry.emit('decodeFailure', failure);
    return results;
  }

  /** Where the entry is now, if its scopes have generations. One command; mints nothing. */
  async locate(address: Address, deadline: Deadline): Promise<EntryKey | undefined> {
    const scopes = collect([address]);
    const replies = await this.#store.read(
      scopes.map((scope) => scope.generationKey),
      deadline,
    );
    const generations = scopes.map((_, i) => (replies[i] ? parseGeneration(replies[i]) : undefined));
    index(scopes);
    return this.#place(address, generations)?.key;
  }

  /** Mints what is missing. Several processes may: the first one's token stands, and each gets that one. */
  async #mint(
    addresses: readonly Address[],
    unminted: readonly number[],
    latest: Map<Scope, GenerationState>,
    results: LookupResult[],
    failures: DecodeFailureEvent[],
    capturedAtMs: number,
    deadline: Deadline,
  ): Promise<void> {
    if (unminted.length === 0) return;
    const missing = new Set<Scope>();
    let longestTtlMs = 0;
    for (const i of unminted) {
      const { scopes, definition } = addresses[i]!;
      for (const scope of scopes) if (latest.get(scope) === 'missing') missing.add(scope);
      longestTtlMs = Math.max(longestTtlMs, definition.ttlMs);
    }
    const minted = [...missing];
    const keys = minted.map((scope) => scope.generationKey);
    let replies;
    try {
      replies = await this.#store.mint(keys, generation(0, nonce()), generationTtl(longestTtlMs), deadline);
    } catch (error) {
      return this.#bypass(addresses, unminted, results, 'mint', error as Error);
    }
    const tokens = new Map(latest);
    minted.forEach((scope, i) => {
      const token = replies[i]!;
      scope.remembered = token === 'foreign' || token === 'quarantined' ? undefined : token;
      tokens.set(scope, token);
    });
    for (const i of unminted) {
      const address = addresses[i]!;
      const vector = this.#vector(address, tokens, capturedAtMs);
      if (vector) results[i] = { outcome: 'miss', vector, cause: 'no_generation' };
      else {
        const isForeign = address.scopes.some((scope) => tokens.get(scope) === 'foreign');
        const state = isForeign ? 'foreign' : 'quarantined';
        results[i] = bypass(state, address, failures, (scope) => tokens.get(scope)!);
      }
    }
  }

  /** Asks once more, under the generations just seen. Final: what moves again meanwhile is a miss. */
  async #readAgain(
    addresses: readonly Address[],
    moved: readonly number[],
    latest: Map<Scope, GenerationState>,
    remembered: Map<Scope, Generation | undefined>,
    results: LookupResult[],
    failures: DecodeFailureEvent[],
    deadline: Deadline,
  ): Promise<void> {
    if (moved.length === 0) return;
    const capturedAtMs = this.#clock.nowMs();
    const batch = moved.map((i) => addresses[i]!);
    const scopes = collect(batch);
    const sent = scopes.map((scope) => latest.get(scope) as Generation);
    const guesses = batch.map((address) => this.#place(address, sent)!);
    const freshness = this.#freshness;
    let replies: readonly (Buffer | null)[];
    try {
      const keys: (GenerationKey | EntryKey | FreshnessKey)[] = scopes.map((scope) => scope.generationKey);
      for (const placed of guesses) keys.push(placed.key);
      if (freshness !== undefined) keys.push(freshness.key);
      replies = await this.#store.read(keys, deadline);
    } catch (error) {
      return this.#bypass(addresses, moved, results, 'read', error as Error);
    }
    if (freshness !== undefined && !freshness.vouches(replies.at(-1)!, capturedAtMs)) {
      for (const i of moved) results[i] = NOT_FRESH;
      return;
    }

    index(scopes);
    const seen = scopes.map((scope, i) => see(scope, replies[i]!, sent[i]));
    batch.forEach((address, i) => {
      const bumped = address.scopes.find((scope) => {
        const before = remembered.get(scope);
        return before !== undefined && before !== seen[scope.index];
      })?.path;
      const cause = bumped === undefined ? 'not_filled' : 'bumped';
      const state = compare(address.scopes, seen, sent);
      let result: LookupResult;
      if (state === 'same') {
        const bytes = replies[scopes.length + i]!;
        result = this.#answer(address, guesses[i]!, capturedAtMs, bytes, failures, cause, bumped);
      } else if (state === 'moved') {
        const vector = vectorAt(address, this.#place(address, seen as Generation[])!, capturedAtMs);
        result = { outcome: 'miss', vector, cause: 'bumped', bumped };
      } else result = bypass(state, address, failures, (scope) => seen[scope.index]!);
      results[moved[i]!] = result;
    });
  }

  /** The answer of one atomic read that showed all of the vector: the entry, or that there is none. */
  #answer(
    address: Address,
    placed: EntryLocation,
    capturedAtMs: number,
    bytes: Buffer | null,
    failures: DecodeFailureEvent[],
    cause: MissCause,
    bumped?: string,
  ): LookupResult {
    if (bytes === null) return { outcome: 'miss', vector: vectorAt(address, placed, capturedAtMs), cause, bumped };
    const opened = open(placed.key, bytes, placed.seed);
    if (opened.ok) return { outcome: 'found', placed, capturedAtMs, value: opened.value, bytes };
    return unusable(address, vectorAt(address, placed, capturedAtMs), failures, opened.reason, opened.message);
  }

  /** Those that needed a second command, which failed; what the first one found stands. */
  #bypass(
    addresses: readonly Address[],
    indexes: readonly number[],
    results: LookupResult[],
    operation: 'mint' | 'read',
    error: Error,
  ): void {
    this.#telemetry.emit('storeFailure', { cache: addresses[0]!.definition.cache, operation, error });
    for (const i of indexes) results[i] = STORE_FAILURE;
  }

  /** Checks what was found against its schema, where there is one. */
  async #check(
    addresses: readonly Address[],
    results: LookupResult[],
    failures: DecodeFailureEvent[],
    deadline: Deadline,
  ): Promise<void> {
    for (let i = 0; i < results.length; i++) {
      const found = results[i]!;
      const { schema } = addresses[i]!.definition;
      if (schema === undefined || found.outcome !== 'found' || found.value === ABSENT) continue;
      const issue = await deadline.race(mismatch(schema, found.value), (cause) => cause);
      if (issue === undefined) continue;
      const vector = vectorAt(addresses[i]!, found.placed, found.capturedAtMs);
      results[i] = unusable(addresses[i]!, vector, failures, 'schema', issue);
    }
  }

  /** Where the entry is under generations by `scope.index`; undefined if one is not known. */
  #place(address: Address, generations: readonly (Generation | undefined)[]): EntryLocation | undefined {
    const { scope, scopes, entryPath } = address;
    const last = scope.lastLocation;
    if (last !== undefined && last.entryPath === entryPath && stands(last.generations, scopes, generations))
      return last;
    const own: Generation[] = [];
    for (const { index } of scopes) {
      const token = generations[index];
      if (token === undefined) return undefined;
      own.push(token);
    }
    return (scope.lastLocation = this.#placed(address, own));
  }

  #placed({ scope, entryPath }: Address, generations: readonly Generation[]): EntryLocation {
    const key = entryKey(this.#prefix, this.#schemaVersion, scope.path, entryPath, generations.join(','));
    return { entryPath, generations, key, seed: { tag: -1, checksum: 0 } };
  }

  #vector(address: Address, tokens: Map<Scope, GenerationState>, capturedAtMs: number): Vector | undefined {
    const generations: Generation[] = [];
    for (const scope of address.scopes) {
      const token = tokens.get(scope)!;
      if (token === 'foreign' || token === 'quarantined' || token === 'missing') return undefined;
      generations.push(token);
    }
    return vectorAt(address, this.#placed(address, generations), capturedAtMs);
  }
}

const STORE_FAILURE: LookupResult = { outcome: 'bypass', reason: 'store_failure' };
const LOST: LookupResult = { outcome: 'bypass', reason: 'generation_lost' };
const UNDER_QUARANTINE: LookupResult = { outcome: 'bypass', reason: 'quarantine' };
const NOT_FRESH: LookupResult = { outcome: 'bypass', reason: 'not_fresh' };

/** What an address comes to that has no vector; `seen` tells how each of its scopes stands. */
function bypass(
  state: 'moved' | 'missing' | 'quarantined' | 'foreign',
  address: Address,
  failures: DecodeFailureEvent[],
  seen: (scope: Scope) => GenerationState,
): LookupResult {
  if (state === 'foreign') return foreign(address, failures, seen);
  return state === 'quarantined' ? UNDER_QUARANTINE : LOST;
}

function foreign(
  address: Address,
  failures: DecodeFailureEvent[],
  seen: (scope: Scope) => GenerationState,
): LookupResult {
  const { generationKey: key } = address.scopes.find((scope) => seen(scope) === 'foreign')!;
  const { cache, name: entry } = address.definition;
  const message =
    `A generation is ${GENERATION_RULE}, in a string. Something else is at ${key}, so the source is read and ` +
    'nothing filled. See who writes there; delete the key if nobody needs it.';
  failures.push({ cache, entry, path: address.scope.path, reason: 'foreign_generation', message });
  return { outcome: 'bypass', reason: 'foreign_generation' };
}

function unusable(
  address: Address,
  vector: Vector,
  failures: DecodeFailureEvent[],
  reason: string,
  message: string,
): LookupResult {
  const { cache, name: entry } = address.definition;
  failures.push({ cache, entry, path: address.scope.path, reason, message });
  return { outcome: 'miss', vector, cause: 'undecodable' };
}

function hasSchema(addresses: readonly Address[]): boolean {
  for (const { definition } of addresses) if (definition.schema !== undefined) return true;
  return false;
}

/** The vector of an address whose entry is at `placed`. */
export function vectorAt(address: Address, placed: EntryLocation, capturedAtMs: number): Vector {
  return new Vector(address.scopes, placed.generations, placed.key, capturedAtMs);
}
