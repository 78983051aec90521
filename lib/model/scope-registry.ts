import type { EntryLocation } from './entry-location.js';
import type { Generation } from './generation.js';
import { type GenerationKey, generationKey } from './key.js';
import type { Scope } from './scope.js';

/**
 * A scope, and what this process remembers of its generation.
 *
 * The memory is a guess that saves a command: every read checks it in the same atomic command that uses it
 * (`read/lookup.ts`), so a wrong or forgotten guess costs one command more and never a wrong answer.
 */
export class RegisteredScope implements Scope {
  readonly path: string;
  readonly level: string;
  readonly generationKey: GenerationKey;
  /** Root first, this scope last. */
  readonly lineage: readonly RegisteredScope[];
  /** The generation seen last, if any. */
  remembered: Generation | undefined;
  /** Where an entry of this scope was seen last: the next hit finds its key made. */
  lastLocation: EntryLocation | undefined;
  /**
   * The lookup round that is being set up, and this scope's position in it. `LookupRound` writes and reads both within
   * one synchronous call, and copies the position: after that call they mean nothing.
   */
  round: object | undefined;
  position = 0;
  readonly #id: unknown;
  /** By level, since a scope may have several namespaces below it; then by id. */
  #children: Map<string, Map<unknown, RegisteredScope>> | undefined;

  constructor({ prefix, level, path, parent, id }: RegisteredScopeOptions) {
    this.#id = id;
    this.path = path;
    this.level = level;
    this.generationKey = generationKey(prefix, path);
    this.lineage = parent ? [...parent.lineage, this] : [this];
  }

  /** The scope of this id one level below, if it is remembered. */
  child(level: string, id: unknown): RegisteredScope | undefined {
    return this.#children?.get(level)?.get(id);
  }

  adopt(child: RegisteredScope): void {
    const children = (this.#children ??= new Map<string, Map<unknown, RegisteredScope>>());
    const siblings = children.get(child.level);
    if (siblings) siblings.set(child.#id, child);
    else children.set(child.level, new Map([[child.#id, child]]));
  }

  /** Its parent finds this scope no longer. */
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
  /** Canonical. */
  readonly id: unknown;
}

/**
 * The scopes that a process saw, so that each has one object with its memory. Bounded: the oldest goes first.
 *
 * A tree, walked by canonical ids: a hit finds its scope without putting a path together and hashing it. Not LRU, for
 * which each hit would renew each level; forgetting a scope in use costs one command, once in `max` new ones. A scope
 * below a forgotten one is not found either, and is made anew when it is asked for.
 */
export class ScopeRegistry {
  readonly root: RegisteredScope;
  readonly #prefix: string;
  readonly #max: number;
  readonly #oldestFirst = new Set<RegisteredScope>();

  /** `max`: how many scopes to remember, about 1 kB each. */
  constructor(prefix: string, max: number) {
    this.#prefix = prefix;
    this.#max = max;
    this.root = new RegisteredScope({ prefix, level: 'global', path: '', parent: undefined, id: undefined });
  }

  /** `id` is canonical, `path` has its text. */
  remember(parent: RegisteredScope, level: string, id: unknown, path: string): RegisteredScope {
    const scope = new RegisteredScope({ prefix: this.#prefix, level, path, parent, id });
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
