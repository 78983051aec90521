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
import type { Clock } from './clock.js';
import type { Deadline } from './deadline.js';
import type { Address } from './definition.js';
import { open } from './envelope.js';
import type { BypassReason, MissCause } from './events.js';
import { GENERATION_RULE, type Generation, generation, nonce, parseGeneration } from './generation.js';
import { type EntryKey, entryKey, type GenerationKey } from './key.js';
import { mismatch } from './schema.js';
import type { Scope } from './scope.js';
import type { Store } from './store/store.js';
import type { Telemetry } from './telemetry.js';
import { generationTtl } from './ttl.js';
import { Vector } from './vector.js';

/** What a lookup of one address came to. */
export type LookedUp =
  /** Decoded once; `bytes` let each further caller have a value of its own. */
  | { readonly outcome: 'found'; readonly vector: Vector; readonly value: unknown; readonly bytes: Buffer }
  /** `bumped` is the path of the topmost scope that moved. */
  | {
      readonly outcome: 'miss';
      readonly vector: Vector;
      readonly cause: MissCause;
      readonly bumped?: string | undefined;
    }
  | { readonly outcome: 'bypass'; readonly reason: BypassReason };

/** A generation as a read saw it. */
type Seen = Generation | 'missing' | 'foreign';

export class Lookup {
  readonly #store: Store;
  readonly #prefix: string;
  readonly #schemaVersion: number;
  readonly #telemetry: Telemetry;
  readonly #clock: Clock;

  constructor(store: Store, prefix: string, schemaVersion: number, telemetry: Telemetry, clock: Clock) {
    this.#store = store;
    this.#prefix = prefix;
    this.#schemaVersion = schemaVersion;
    this.#telemetry = telemetry;
    this.#clock = clock;
  }

  /**
   * `addresses: [n] -> [n]`. One command where every generation is as remembered; otherwise a second: a read, a mint,
   * or, where some of the batch need one and some the other, both at once. Rejects as the store does.
   */
  async read(addresses: readonly Address[], deadline: Deadline): Promise<LookedUp[]> {
    const capturedAtMs = this.#clock.nowMs();
    const scopes = collect(addresses);
    const sent = scopes.map((scope) => scope.remembered);
    const guesses = addresses.map((address) => this.#keyUnder(address, sent));
    const replies = await this.#ask(scopes, guesses, deadline);

    index(scopes);
    const seen = scopes.map((scope, i) => see(scope, replies[i]!, sent[i]));
    const results = new Array<LookedUp>(addresses.length);
    const unminted: number[] = [];
    const moved: number[] = [];
    let next = scopes.length;
    for (let i = 0; i < addresses.length; i++) {
      const address = addresses[i]!;
      const bytes = guesses[i] === undefined ? null : replies[next++]!;
      switch (compare(address.scopes, seen, sent)) {
        case 'same':
          results[i] = this.#answer(address, vectorOf(address, seen, guesses[i]!, capturedAtMs), bytes, 'not_filled');
          break;
        case 'foreign':
          results[i] = this.#foreign(address, (scope) => seen[scope.index]!);
          break;
        case 'missing':
          unminted.push(i);
          break;
        case 'moved':
          moved.push(i);
      }
    }
    if (unminted.length + moved.length > 0) {
      const latest = new Map(scopes.map((scope, i) => [scope, seen[i]!]));
      const remembered = new Map(scopes.map((scope, i) => [scope, sent[i]]));
      await Promise.all([
        this.#mint(addresses, unminted, latest, results, capturedAtMs, deadline),
        this.#readAgain(addresses, moved, latest, remembered, results, deadline),
      ]);
    }
    return this.#checked(addresses, results);
  }

  /** Where the entry is now, if its scopes have generations. One command; mints nothing. */
  async locate(address: Address, deadline: Deadline): Promise<EntryKey | undefined> {
    const scopes = collect([address]);
    const replies = await this.#ask(scopes, [], deadline);
    const generations = scopes.map((_, i) => (replies[i] ? parseGeneration(replies[i]) : undefined));
    index(scopes);
    return this.#keyUnder(address, generations);
  }

  async #ask(
    scopes: readonly Scope[],
    entries: readonly (EntryKey | undefined)[],
    deadline: Deadline,
  ): Promise<readonly (Buffer | null)[]> {
    const keys: (GenerationKey | EntryKey)[] = [];
    for (const scope of scopes) keys.push(scope.generationKey);
    for (const key of entries) if (key !== undefined) keys.push(key);
    return this.#store.read(keys, deadline);
  }

  /** Mints what is missing. Several processes may: the first one's token stands, and each gets that one. */
  async #mint(
    addresses: readonly Address[],
    unminted: readonly number[],
    latest: Map<Scope, Seen>,
    results: LookedUp[],
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
    const replies = await this.#store.mint(keys, generation(0, nonce()), generationTtl(longestTtlMs), deadline);
    const tokens = new Map(latest);
    minted.forEach((scope, i) => {
      const token = replies[i]!;
      scope.remembered = token === 'foreign' ? undefined : token;
      tokens.set(scope, token);
    });
    for (const i of unminted) {
      const address = addresses[i]!;
      const vector = this.#vector(address, tokens, capturedAtMs);
      results[i] = vector
        ? { outcome: 'miss', vector, cause: 'no_generation' }
        : this.#foreign(address, (scope) => tokens.get(scope)!);
    }
  }

  /** Asks once more, under the generations just seen. Final: what moves again meanwhile is a miss. */
  async #readAgain(
    addresses: readonly Address[],
    moved: readonly number[],
    latest: Map<Scope, Seen>,
    remembered: Map<Scope, Generation | undefined>,
    results: LookedUp[],
    deadline: Deadline,
  ): Promise<void> {
    if (moved.length === 0) return;
    const capturedAtMs = this.#clock.nowMs();
    const batch = moved.map((i) => addresses[i]!);
    const scopes = collect(batch);
    const sent = scopes.map((scope) => latest.get(scope) as Generation);
    const guesses = batch.map((address) => this.#keyUnder(address, sent)!);
    const replies = await this.#ask(scopes, guesses, deadline);

    index(scopes);
    const seen = scopes.map((scope, i) => see(scope, replies[i]!, sent[i]));
    batch.forEach((address, i) => {
      const bumped = address.scopes.find((scope) => {
        const before = remembered.get(scope);
        return before !== undefined && before !== seen[scope.index];
      })?.path;
      const cause = bumped === undefined ? 'not_filled' : 'bumped';
      const state = compare(address.scopes, seen, sent);
      let result: LookedUp;
      if (state === 'same') {
        const vector = vectorOf(address, seen, guesses[i]!, capturedAtMs);
        result = this.#answer(address, vector, replies[scopes.length + i]!, cause, bumped);
      } else if (state === 'moved') {
        const key = this.#keyUnder(address, seen as Generation[])!;
        result = { outcome: 'miss', vector: vectorOf(address, seen, key, capturedAtMs), cause: 'bumped', bumped };
      } else result = state === 'foreign' ? this.#foreign(address, (scope) => seen[scope.index]!) : LOST;
      results[moved[i]!] = result;
    });
  }

  /** The answer of one atomic read that showed all of the vector: the entry, or that there is none. */
  #answer(address: Address, vector: Vector, bytes: Buffer | null, cause: MissCause, bumped?: string): LookedUp {
    if (bytes === null) return { outcome: 'miss', vector, cause, bumped };
    const opened = open(vector.entryKey, bytes);
    if (opened.ok) return { outcome: 'found', vector, value: opened.value, bytes };
    return this.#unusable(address, vector, opened.reason, opened.message);
  }

  /** Checks what was found against its schema, where there is one. */
  async #checked(addresses: readonly Address[], results: LookedUp[]): Promise<LookedUp[]> {
    for (let i = 0; i < results.length; i++) {
      const found = results[i]!;
      const { schema } = addresses[i]!.definition;
      if (schema === undefined || found.outcome !== 'found') continue;
      const issue = await mismatch(schema, found.value);
      if (issue !== undefined) results[i] = this.#unusable(addresses[i]!, found.vector, 'schema', issue);
    }
    return results;
  }

  #foreign(address: Address, seen: (scope: Scope) => Seen): LookedUp {
    const { generationKey: key } = address.scopes.find((scope) => seen(scope) === 'foreign')!;
    const { cache, name: entry } = address.definition;
    const message =
      `A generation is ${GENERATION_RULE}, in a string. Something else is at ${key}, so the source is read and ` +
      'nothing filled. See who writes there; delete the key if nobody needs it.';
    const { path } = address.scope;
    this.#telemetry.emit('decodeFailure', { cache, entry, path, reason: 'foreign_generation', message });
    return { outcome: 'bypass', reason: 'foreign_generation' };
  }

  #unusable(address: Address, vector: Vector, reason: string, message: string): LookedUp {
    const { cache, name } = address.definition;
    this.#telemetry.emit('decodeFailure', { cache, entry: name, path: address.scope.path, reason, message });
    return { outcome: 'miss', vector, cause: 'undecodable' };
  }

  /** The entry's key under generations by `scope.index`, or undefined if one is not known. */
  #keyUnder(address: Address, generations: readonly (Generation | undefined)[]): EntryKey | undefined {
    let vector = '';
    for (const scope of address.scopes) {
      const token = generations[scope.index];
      if (token === undefined) return undefined;
      vector = vector === '' ? token : `${vector},${token}`;
    }
    return entryKey(this.#prefix, this.#schemaVersion, address.scope.path, address.place, vector);
  }

  #vector(address: Address, tokens: Map<Scope, Seen>, capturedAtMs: number): Vector | undefined {
    const generations: Generation[] = [];
    for (const scope of address.scopes) {
      const token = tokens.get(scope)!;
      if (token === 'foreign' || token === 'missing') return undefined;
      generations.push(token);
    }
    const key = entryKey(this.#prefix, this.#schemaVersion, address.scope.path, address.place, generations.join(','));
    return new Vector(address.scopes, generations, key, capturedAtMs);
  }
}

const LOST: LookedUp = { outcome: 'bypass', reason: 'generation_lost' };

/** Every scope of the batch once, indexed. */
function collect(addresses: readonly Address[]): Scope[] {
  const collection = {};
  const scopes: Scope[] = [];
  for (const address of addresses) {
    for (const scope of address.scopes) {
      if (scope.collectedBy === collection) continue;
      scope.collectedBy = collection;
      scope.index = scopes.length;
      scopes.push(scope);
    }
  }
  return scopes;
}

/** Restores the indexes after an await, during which other batches may have set their own. */
function index(scopes: readonly Scope[]): void {
  for (let i = 0; i < scopes.length; i++) scopes[i]!.index = i;
}

function see(scope: Scope, reply: Buffer | null, sent: Generation | undefined): Seen {
  if (reply === null) {
    scope.remembered = undefined;
    return 'missing';
  }
  const value = reply.toString('latin1');
  if (value === sent) return sent;
  scope.remembered = parseGeneration(value);
  return scope.remembered ?? 'foreign';
}

/** How the scopes of an address stand against what was sent: the worst of them. */
function compare(
  scopes: readonly Scope[],
  seen: readonly Seen[],
  sent: readonly (Generation | undefined)[],
): 'same' | 'moved' | 'missing' | 'foreign' {
  let state: 'same' | 'moved' | 'missing' = 'same';
  for (const { index } of scopes) {
    const token = seen[index]!;
    if (token === 'foreign') return 'foreign';
    if (token === 'missing') state = 'missing';
    else if (token !== sent[index] && state === 'same') state = 'moved';
  }
  return state;
}

function vectorOf(address: Address, seen: readonly Seen[], key: EntryKey, capturedAtMs: number): Vector {
  const generations = address.scopes.map((scope) => seen[scope.index] as Generation);
  return new Vector(address.scopes, generations, key, capturedAtMs);
}
