import type { Seed } from '../codec/envelope.js';
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
  lastLocation: EntryLocation | undefined;
  /** The lookup that collected this scope last: a set of scopes without a set. */
  collectedBy: object | undefined;
  /** This scope's index in that lookup. */
  index = 0;
  readonly #id: unknown;
  /** By level, since a scope may have several namespaces below it; then by id. */
  #children: Map<string, Map<unknown, Scope>> | undefined;

  constructor(prefix: string, level: string, path: string, parent: Scope | undefined, id: unknown) {
    this.#id = id;
    this.path = path;
    this.level = level;
    this.generationKey = generationKey(prefix, path);
    this.lineage = parent ? [...parent.lineage, this] : [this];
  }

  /** The scope of this id one level below, if it is remembered. */
  child(level: string, id: unknown): Scope | undefined {
    return this.#children?.get(level)?.get(id);
  }

  adopt(child: Scope): void {
    const children = (this.#children ??= new Map<string, Map<unknown, Scope>>());
    const siblings = children.get(child.level);
    if (siblings) siblings.set(child.#id, child);
    else children.set(child.level, new Map([[child.#id, child]]));
  }

  /** Is found by its parent no more. */
  leave(): void {
    const parent = this.lineage.at(-2)!;
    if (parent.child(this.level, this.#id) === this) parent.#children!.get(this.level)!.delete(this.#id);
  }
}

/** An entry's place under given generations. */
export interface EntryLocation {
  readonly entryPath: string;
  /** Of the vector's scopes, in their order. */
  readonly generations: readonly Generation[];
  readonly key: EntryKey;
  readonly seed: Seed;
}

/**
 * The scopes that a process saw, so that each has one object with its memory. Bounded: the oldest goes first.
 *
 * A tree, walked by canonical ids: a hit finds its scope without putting a path together and hashing it. Not LRU, for
 * which each hit would renew each level; forgetting a scope in use costs one command, once in `max` new ones. What
 * lies below a forgotten scope is found no more, and made anew when it is asked for.
 */
export class ScopeRegistry {
  readonly root: Scope;
  readonly #prefix: string;
  readonly #max: number;
  readonly #oldestFirst = new Set<Scope>();

  /** `max`: how many scopes to remember, about 1 kB each. */
  constructor(prefix: string, max: number) {
    this.#prefix = prefix;
    this.#max = max;
    this.root = new Scope(prefix, 'global', '', undefined, undefined);
  }

  /** `id` is canonical, `path` has its text. */
  remember(parent: Scope, level: string, id: unknown, path: string): Scope {
    const scope = new Scope(this.#prefix, level, path, parent, id);
    parent.adopt(scope);
    this.#oldestFirst.add(scope);
    if (this.#oldestFirst.size > this.#max) {
      const [oldest] = this.#oldestFirst;
      this.#oldestFirst.delete(oldest!);
      oldest!.leave();
    }
    return scope;
  }
}
