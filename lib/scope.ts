import { LRUCache } from 'lru-cache';
import type { Seed } from './envelope.js';
import type { Generation } from './generation.js';
import { type EntryKey, type GenerationKey, generationKey } from './key.js';

/**
 * A namespace bound to ids, and what this process remembers of its generation.
 *
 * The memory is a guess that saves a command: every read checks it in the same atomic command that uses it
 * (`lookup.ts`), so a wrong or forgotten guess costs one command more and never a wrong answer.
 */
export class Scope {
  /** `detector=42/environment=7`; empty for global. */
  readonly path: string;
  /** The namespace's name: `detector`; `global` for the root. */
  readonly level: string;
  readonly generationKey: GenerationKey;
  /** Root first, this scope last. */
  readonly lineage: readonly Scope[];
  /** The generation seen last, if any. */
  remembered: Generation | undefined;
  /** Where an entry of this scope was seen last: the next hit finds its key made. */
  placed: Placed | undefined;
  /** The lookup that collected this scope last: a set of scopes without a set. */
  collectedBy: object | undefined;
  /** This scope's index in that lookup. */
  index = 0;

  constructor(prefix: string, level: string, path: string, parent: Scope | undefined) {
    this.path = path;
    this.level = level;
    this.generationKey = generationKey(prefix, path);
    this.lineage = parent ? [...parent.lineage, this] : [this];
  }
}

/** An entry's place under given generations. */
export interface Placed {
  readonly place: string;
  /** Of the vector's scopes, in their order. */
  readonly generations: readonly Generation[];
  readonly key: EntryKey;
  readonly seed: Seed;
}

/** The scopes that a process saw last, so that each has one object with its memory. Bounded, LRU. */
export class Scopes {
  readonly root: Scope;
  readonly #prefix: string;
  readonly #byPath: LRUCache<string, Scope>;

  /** `max`: how many scopes to remember, about 400 bytes each. */
  constructor(prefix: string, max: number) {
    this.#prefix = prefix;
    this.root = new Scope(prefix, 'global', '', undefined);
    this.#byPath = new LRUCache({ max });
  }

  known(path: string): Scope | undefined {
    return path === '' ? this.root : this.#byPath.get(path);
  }

  remember(parent: Scope, level: string, path: string): Scope {
    const scope = new Scope(this.#prefix, level, path, parent);
    this.#byPath.set(path, scope);
    return scope;
  }
}
