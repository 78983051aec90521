import type { Address } from '../model/entry-definition.js';
import type { EntryLocation } from '../model/entry-location.js';
import { type Generation, type GenerationState, generationState } from '../model/generation.js';
import type { RegisteredScope } from '../model/scope-registry.js';
import type { LocalEntry } from './local-tier.js';

/** State of an address: the worst state of its scopes, compared with the generations that the round asked under. */
export type RoundState = 'same' | 'moved' | 'missing' | 'quarantined' | 'foreign';

/**
 * One read of a lookup: the scopes of its addresses, each once, the generations it asks under, and their states.
 *
 * Arrays hold the data of scopes, by the scope's position in `scopes`. A round keeps the positions of each address's
 * scopes itself, so that concurrent rounds do not interfere.
 */
export class LookupRound {
  readonly addresses: readonly Address[];
  readonly scopes: readonly RegisteredScope[];
  /** By position: the generation that the read asks under. */
  readonly sent: readonly (Generation | undefined)[];
  /** By position: the state of each scope, after the reply. */
  seen: readonly GenerationState[] = [];
  /** Location of each address's entry in the read; undefined if a generation is unknown. */
  locations: readonly (EntryLocation | undefined)[] = [];
  /** By address: what the local tier holds, which the read does not ask for; undefined without a tier. */
  held: readonly (LocalEntry | undefined)[] | undefined;
  /** Of `locations`: what the local tier held beyond its TTL, by address, where that stays until the store has answered. */
  expired: { readonly index: number; readonly entry: LocalEntry }[] | undefined;
  /** Takes the states of `scopes`, for a cache that tracks generations, or answers in outages. */
  verify: ((states: readonly GenerationState[]) => void) | undefined;
  /** The positions of every address's scopes, one address after another; undefined for a single address, whose scopes are `scopes`. */
  readonly #positions: readonly number[] | undefined;
  /** Start of each address in `#positions`. */
  readonly #starts: readonly number[] | undefined;

  /** `generationOf` returns the generation of a scope to ask under; by default the remembered one. */
  constructor(
    addresses: readonly Address[],
    generationOf: (scope: RegisteredScope) => Generation | undefined = remembered,
  ) {
    this.addresses = addresses;
    if (addresses.length === 1) this.scopes = addresses[0]!.scopes;
    else ({ scopes: this.scopes, positions: this.#positions, starts: this.#starts } = positionsOf(addresses));
    const sent: (Generation | undefined)[] = [];
    for (const scope of this.scopes) sent.push(generationOf(scope));
    this.sent = sent;
  }

  /** Takes the replies for `scopes`, in their order, and remembers the generations in them. */
  see(replies: readonly (Buffer | null)[]): void {
    const seen: GenerationState[] = [];
    for (let position = 0; position < this.scopes.length; position++) {
      seen.push(see(this.scopes[position]!, replies[position]!, this.sent[position]));
    }
    this.seen = seen;
  }

  /** Returns the state of an address. */
  stateOf(index: number): RoundState {
    const { length } = this.addresses[index]!.scopes;
    let state: RoundState = 'same';
    for (let i = 0; i < length; i++) {
      const position = this.position(index, i);
      const token = this.seen[position]!;
      if (token === 'foreign') return 'foreign';
      if (token === 'quarantined') state = 'quarantined';
      else if (token === 'missing') {
        if (state !== 'quarantined') state = 'missing';
      } else if (token !== this.sent[position] && state === 'same') state = 'moved';
    }
    return state;
  }

  /** Returns whether `own` are the generations of an address's scopes in `generations`, by position. */
  matches(index: number, own: readonly Generation[], generations: readonly (GenerationState | undefined)[]): boolean {
    if (own.length !== this.addresses[index]!.scopes.length) return false;
    for (let i = 0; i < own.length; i++) if (generations[this.position(index, i)] !== own[i]) return false;
    return true;
  }

  /** Picks the generations of an address's scopes from `generations`, by position; undefined unless all of them stand. */
  generationsOf(index: number, generations: readonly (GenerationState | undefined)[]): Generation[] | undefined {
    const own: Generation[] = [];
    for (let i = 0; i < this.addresses[index]!.scopes.length; i++) {
      const token = generations[this.position(index, i)];
      if (token === undefined || token === 'missing' || token === 'quarantined' || token === 'foreign')
        return undefined;
      own.push(token);
    }
    return own;
  }

  /** Returns the first scope of an address that is foreign in `states`, by position. */
  foreignScope(index: number, states: readonly GenerationState[] = this.seen): RegisteredScope | undefined {
    return this.addresses[index]!.scopes.find((_, i) => states[this.position(index, i)] === 'foreign');
  }

  /** Returns the position of the `i`th scope of an address. */
  position(index: number, i: number): number {
    return this.#positions === undefined ? i : this.#positions[this.#starts![index]! + i]!;
  }
}

function remembered(scope: RegisteredScope): Generation | undefined {
  return scope.remembered;
}

/** Finds each scope once by a mark on the scope itself, which needs no hashing on the way of a hit. */
function positionsOf(addresses: readonly Address[]) {
  const round = {};
  const scopes: RegisteredScope[] = [];
  const positions: number[] = [];
  const starts: number[] = [];
  for (const address of addresses) {
    starts.push(positions.length);
    for (const scope of address.scopes) {
      if (scope.round !== round) {
        scope.round = round;
        scope.position = scopes.length;
        scopes.push(scope);
      }
      positions.push(scope.position);
    }
  }
  return { scopes, positions, starts };
}

function see(scope: RegisteredScope, reply: Buffer | null, sent: Generation | undefined): GenerationState {
  if (reply === null) {
    scope.remembered = undefined;
    return 'missing';
  }
  const value = reply.toString('latin1');
  if (value === sent) return sent;
  const state = generationState(value);
  scope.remembered = state === 'quarantined' || state === 'foreign' ? undefined : state;
  return state;
}
