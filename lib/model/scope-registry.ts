import type { EntryLocation } from './entry-location.js';
import type { Generation } from './generation.js';
import { type GenerationKey, generationKey, partitionOf } from './key.js';
import type { Scope } from './scope.js';
import type { ReplySighting } from './sighting.js';
import type { TrackedScope } from './tracked-scope.js';

/**
 * A scope, and the generation of it that this process saw last.
 *
 * The remembered generation is a guess that saves a command: every read checks it in the same atomic command that uses
 * it (`read/lookup.ts`), so a wrong or forgotten guess costs one command more and never a wrong answer.
 */
export class RegisteredScope implements Scope {
  // What an answer without a round trip looks at comes first: it lies in one line of the processor's cache.
  /** The value of the local tier that answered a read of this scope last without a round trip (`read/local-reader.ts`). */
  answer: object | undefined;
  /** The partition that its generation lies in. */
  readonly partition: number;
  readonly path: string;
  readonly level: string;
  readonly generationKey: GenerationKey;
  /** The scopes from the root down to this one. */
  readonly lineage: readonly RegisteredScope[];
  /** Of a global scope: that of each partition, by its number; shared by the global scopes of one registry. */
  readonly copies: readonly RegisteredScope[] | undefined;
  /** The generation seen last, if any. */
  remembered: Generation | undefined;
  /** What the store's pushes tell of its generation; undefined unless the cache tracks generations. */
  tracked: TrackedScope | undefined;
  /** Location of the entry of this scope that was read last: the next hit reuses its key. */
  lastLocation: EntryLocation | undefined;
  /**
   * The lookup round that is being set up, and this scope's position in it. `LookupRound` writes and reads both within
   * one synchronous call, and copies the position; after that call both are meaningless.
   */
  round: object | undefined;
  position = 0;
  /** The generation that the newest reply showed, and when; undefined unless the cache answers in outages (`read/sightings.ts`). */
  sighted: Generation | undefined;
  sighting: ReplySighting | undefined;
  readonly #id: unknown;
  /** The scope that finds this one as a child: the first global one for the scopes right below it, of any partition. */
  readonly #holder: RegisteredScope | undefined;
  /** The level of the first child, and the children of that level by id: most scopes have one namespace below them. */
  #firstLevel: string | undefined;
  #ofFirstLevel: Map<unknown, RegisteredScope> | undefined;
  /** Children of further levels, then by id. */
  #ofOthers: Map<string, Map<unknown, RegisteredScope>> | undefined;

  constructor({ prefix, partition, level, path, above, holder, id, copies }: RegisteredScopeOptions) {
    this.#id = id;
    this.#holder = holder;
    this.partition = partition;
    this.copies = copies;
    this.path = path;
    this.level = level;
    this.generationKey = generationKey(prefix, path);
    this.lineage = above ? [...above.lineage, this] : [this];
  }

  /** Returns the scope of this id one level below, if it is remembered. */
  child(level: string, id: unknown): RegisteredScope | undefined {
    return this.#childrenOf(level)?.get(id);
  }

  #childrenOf(level: string): Map<unknown, RegisteredScope> | undefined {
    return level === this.#firstLevel ? this.#ofFirstLevel : this.#ofOthers?.get(level);
  }

  /** Lets `child()` find this scope. */
  adopt(child: RegisteredScope): void {
    const siblings = this.#childrenOf(child.level);
    if (siblings) siblings.set(child.#id, child);
    else if (this.#firstLevel === undefined) {
      this.#firstLevel = child.level;
      this.#ofFirstLevel = new Map([[child.#id, child]]);
    } else {
      const others = (this.#ofOthers ??= new Map<string, Map<unknown, RegisteredScope>>());
      others.set(child.level, new Map([[child.#id, child]]));
    }
  }

  /** Removes this scope from its parent. */
  leave(): void {
    this.tracked?.forget();
    const holder = this.#holder!;
    if (holder.child(this.level, this.#id) === this) holder.#childrenOf(this.level)!.delete(this.#id);
  }
}

interface RegisteredScopeOptions {
  /** The prefix of its partition's keys. */
  readonly prefix: string;
  readonly partition: number;
  readonly level: string;
  readonly path: string;
  /** The scope right above it, in the same partition. */
  readonly above: RegisteredScope | undefined;
  readonly holder: RegisteredScope | undefined;
  /** The canonical id. */
  readonly id: unknown;
  readonly copies: readonly RegisteredScope[] | undefined;
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
  /** The global scope of the first partition, from which all scopes are found. */
  readonly root: RegisteredScope;
  readonly #roots: readonly RegisteredScope[];
  readonly #prefixes: readonly string[];
  readonly #max: number;
  readonly #oldestFirst = new Set<RegisteredScope>();
  /** Stands at the oldest scope. A new iterator would first pass the places of all scopes deleted since the Set last grew. */
  readonly #oldest = this.#oldestFirst.values();

  /** `prefixes`: those of the keys of each partition. `max`: number of scopes to remember, about 1 kB each. */
  constructor(prefixes: readonly string[], max: number) {
    this.#prefixes = prefixes;
    this.#max = max;
    const copies: RegisteredScope[] = [];
    for (const [partition, prefix] of prefixes.entries()) {
      const none = { above: undefined, holder: undefined, id: undefined };
      copies.push(new RegisteredScope({ prefix, partition, level: 'global', path: '', copies, ...none }));
    }
    this.#roots = copies;
    this.root = copies[0]!;
  }

  /** Adds the scope of the canonical `id` below `parent`; `path` is the whole path of the new scope. */
  remember(parent: RegisteredScope, level: string, id: unknown, path: string): RegisteredScope {
    const isFirst = parent === this.root;
    const partition = isFirst ? partitionOf(path, this.#roots.length) : parent.partition;
    const scope = new RegisteredScope({
      ...{ prefix: this.#prefixes[partition]!, partition, level, path, id },
      ...{ above: isFirst ? this.#roots[partition] : parent, holder: parent, copies: undefined },
    });
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
