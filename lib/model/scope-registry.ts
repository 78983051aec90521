import type { EntryLocation } from './entry-location.js';
import type { Generation } from './generation.js';
import { type GenerationKey, generationKey } from './key.js';
import type { Scope } from './scope.js';

/**
 * A scope, and the generation of it that this process saw last.
 *
 * The remembered generation is a guess that saves a command: every read checks it in the same atomic command that uses
 * it (`read/lookup.ts`), so a wrong or forgotten guess costs one command more and never a wrong answer.
 */
export class RegisteredScope implements Scope {
  readonly path: string;
  readonly level: string;
  readonly generationKey: GenerationKey;
  /** The scopes from the root down to this one. */
  readonly lineage: readonly RegisteredScope[];
  /** The generation seen last, if any. */
  remembered: Generation | undefined;
  /** Location of the entry of this scope that was read last: the next hit reuses its key. */
  lastLocation: EntryLocation | undefined;
  /**
   * The lookup round that is being set up, and this scope's position in it. `LookupRound` writes and reads both within
   * one synchronous call, and copies the position; after that call both are meaningless.
   */
  round: object | undefined;
  position = 0;
  readonly #id: unknown;
  /** Children by level, since a scope may have several namespaces below it; then by id. */
  #children: Map<string, Map<unknown, RegisteredScope>> | undefined;

  constructor({ prefix, level, path, parent, id }: RegisteredScopeOptions) {
    this.#id = id;
    this.path = path;
    this.level = level;
    this.generationKey = generationKey(prefix, path);
    this.lineage = parent ? [...parent.lineage, this] : [this];
  }

  /** Returns the scope of this id one level below, if it is remembered. */
  child(level: string, id: unknown): RegisteredScope | undefined {
    return this.#children?.get(level)?.get(id);
  }

  /** Lets `child()` find this scope. */
  adopt(child: RegisteredScope): void {
    const children = (this.#children ??= new Map<string, Map<unknown, RegisteredScope>>());
    const siblings = children.get(child.level);
    if (siblings) siblings.set(child.#id, child);
    else children.set(child.level, new Map([[child.#id, child]]));
  }

  /** Removes this scope from its parent. */
  leave(): void {
    const parent = this.lineage.at(-2)!;
    if (parent.child(this.level, this.#id) === this) parent.#children!.get(this.level)!.delete(this.#id);
  }
}

interface RegisteredScopeOptions {
  readonly prefix: string;
  readonly level: string;
  readonly path: string;
  readonly parent: RegisteredScope | undefined;
  /** The canonical id. */
  readonly id: unknown;
}

/**
 * The scopes that a process saw, one object each, with the generation it remembers. The registry is bounded, and forgets
 * the oldest scope first.
 *
 * Scopes form a tree that is walked by canonical ids: a hit finds its scope without building and hashing a path. The
 * order is first in, first out: LRU would update every level on each hit. The registry may forget a scope in use, which
 * costs one command. A scope below a forgotten one is not found either; the next call that names it makes it anew.
 */
export class ScopeRegistry {
  readonly root: RegisteredScope;
  readonly #prefix: string;
  readonly #max: number;
  readonly #oldestFirst = new Set<RegisteredScope>();
  /** Stands at the oldest scope. A new iterator would first pass the places of all scopes deleted since the Set last grew. */
  readonly #oldest = this.#oldestFirst.values();

  /** `max`: number of scopes to remember, about 1 kB each. */
  constructor(prefix: string, max: number) {
    this.#prefix = prefix;
    this.#max = max;
    this.root = new RegisteredScope({ prefix, level: 'global', path: '', parent: undefined, id: undefined });
  }

  /** Adds the scope of the canonical `id` below `parent`; `path` is the whole path of the new scope. */
  remember(parent: RegisteredScope, level: string, id: unknown, path: string): RegisteredScope {
    const scope = new RegisteredScope({ prefix: this.#prefix, level, path, parent, id });
    parent.adopt(scope);
    this.#oldestFirst.add(scope);
    if (this.#oldestFirst.size > this.#max) {
      const oldest = this.#oldest.next().value!;
      this.#oldestFirst.delete(oldest);
      oldest.leave();
    }
    return scope;
  }
}
