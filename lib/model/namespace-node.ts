import { ConfigurationError, IdError } from '../errors/errors.js';
import type { NamespaceContents } from './cache-declaration.js';
import type { IdKind } from './id-kind.js';
import { childPath, isName, NAME_RULE } from './key.js';
import type { RegisteredScope, ScopeRegistry } from './scope-registry.js';
import { describe } from '../errors/describe.js';

/**
 * A node of the declared tree of namespaces: the names and kinds of a scope's ids, and the scope of given ids.
 * Ids are named, so that they can't be swapped; no name occurs twice on a branch.
 */
export class NamespaceNode {
  readonly scopes: ScopeRegistry;
  readonly level: string;
  readonly #kind: IdKind<unknown, unknown> | undefined;
  /** Nodes from the root down, without the root itself, which has no id. */
  readonly #branch: readonly NamespaceNode[];
  readonly #children = new Map<string, NamespaceNode>();
  readonly #entries = new Set<string>();
  /** Shared by the nodes of one tree. */
  readonly #tree: { declarations: number };

  private constructor({ scopes, level, kind, parent }: NamespaceNodeOptions) {
    this.#tree = parent ? parent.#tree : { declarations: 0 };
    this.scopes = scopes;
    this.level = level;
    this.#kind = kind;
    this.#branch = parent ? [...parent.#branch, this] : [];
  }

  static root(scopes: ScopeRegistry): NamespaceNode {
    return new NamespaceNode({ scopes, level: 'global' });
  }

  /** The names of a scope's ids, root first. */
  get idNames(): string[] {
    return this.#branch.map((node) => node.level);
  }

  /** The names of this namespace and of those above it, root first: `global`, `detector/environment`. */
  get path(): string {
    return this.idNames.join('/') || 'global';
  }

  /** Declares a namespace below this one. Throws ConfigurationError for a name that is taken or malformed. */
  child(name: string, kind: IdKind<unknown, unknown>): NamespaceNode {
    if (!isName(name) || name === 'global') {
      throw new ConfigurationError(
        `The name of a namespace must be ${NAME_RULE}, and not "global", but got ${describe(name)}. Choose such a name.`,
      );
    }
    const taken = this.#children.has(name)
      ? `below ${this.level}`
      : this.idNames.includes(name)
        ? 'above it'
        : undefined;
    if (taken) {
      throw new ConfigurationError(
        `A namespace must be declared once, but got "${name}" again (already declared ${taken}). ` +
          'Keep the object that the first declaration returned and use it everywhere.',
      );
    }
    const node = new NamespaceNode({ scopes: this.scopes, level: name, kind, parent: this });
    this.#children.set(name, node);
    this.#tree.declarations++;
    return node;
  }

  hasEntry(name: string): boolean {
    return this.#entries.has(name);
  }

  addEntry(name: string): void {
    this.#entries.add(name);
    this.#tree.declarations++;
  }

  /** Number of namespaces and entries that are declared in the whole tree. */
  get declarations(): number {
    return this.#tree.declarations;
  }

  /** The entries of this namespace, and the namespaces below it. */
  get contents(): NamespaceContents {
    const children = [...this.#children].toSorted(([a], [b]) => (a < b ? -1 : 1));
    return {
      entries: [...this.#entries].toSorted(),
      namespaces: children.map(([name, node]) => ({ name, kind: node.#kind!.name, ...node.contents })),
    };
  }

  /**
   * Returns the scope of `ids`, and their canonical values, root first; equal ids have equal values. `keyNames`, for an
   * entry, are the ids of its key, which the entry binds itself. Throws IdError for a missing or unknown id, and for an id that
   * its kind can't hold.
   */
  bind(
    ids: Readonly<Record<string, unknown>>,
    keyNames?: readonly string[],
  ): { scope: RegisteredScope; values: unknown[] } {
    if (typeof ids !== 'object' || ids === null) throw notIds(ids, this.idNames);
    const holder = keyNames === undefined ? 'namespace' : 'entry';
    const values: unknown[] = [];
    let scope = this.scopes.root;
    for (const node of this.#branch) {
      const value = canonicalId(node.level, node.#kind!, ids, holder);
      values.push(value);
      scope = scope.child(node.level, value) ?? node.#remember(scope, value);
    }
    let count = 0;
    for (const _ in ids) count++;
    if (count !== this.#branch.length + (keyNames?.length ?? 0)) {
      const missing = keyNames?.find((name) => ids[name] === undefined);
      if (missing !== undefined) throw missingId(missing, 'key', ids);
      throw unknownId(ids, [...this.idNames, ...(keyNames ?? [])]);
    }
    return { scope, values };
  }

  /**
   * Returns the scope of `ids` if the registry has it, without an allocation. undefined also for ids that `bind` rejects.
   * For a node without further ids.
   */
  find(ids: Readonly<Record<string, unknown>>): RegisteredScope | undefined {
    if (typeof ids !== 'object' || ids === null) return undefined;
    let scope: RegisteredScope | undefined = this.scopes.root;
    for (let i = 0; i < this.#branch.length; i++) {
      const node = this.#branch[i]!;
      const value = node.#kind!.value(ids[node.level]);
      scope = value === undefined ? undefined : scope.child(node.level, value);
      if (scope === undefined) return undefined;
    }
    let count = 0;
    for (const _ in ids) count++;
    return count === this.#branch.length ? scope : undefined;
  }

  #remember(parent: RegisteredScope, id: unknown): RegisteredScope {
    return this.scopes.remember(parent, this.level, id, childPath(parent.path, this.level, this.#kind!.text(id)));
  }
}

interface NamespaceNodeOptions {
  readonly scopes: ScopeRegistry;
  readonly level: string;
  /** undefined for the root, which has no id. */
  readonly kind?: IdKind<unknown, unknown>;
  readonly parent?: NamespaceNode;
}

/** The declaration that an id belongs to, for the remedies of messages. */
type IdHolder = 'namespace' | 'entry' | 'key';

const OTHER_KIND: Readonly<Record<IdHolder, string>> = {
  namespace: 'Pass an id of that kind, or declare the namespace with the kind its ids have.',
  entry: 'Pass an id of that kind, or declare the namespace with the kind its ids have.',
  key: 'Pass an id of that kind, or declare it in `key` with the kind its ids have.',
};

const MISSING: Readonly<Record<IdHolder, readonly [rule: string, remedy: string]>> = {
  namespace: ['Ids must name every namespace from the root down', 'Add it, or use the namespace above it.'],
  entry: [
    'Ids must name every namespace from the root down',
    'Add it, or declare the entry on the namespace above it.',
  ],
  key: ["Ids must name every id of the entry's `key`", 'Add it.'],
};

/** Returns the canonical value of the id `name` in `ids`. Throws IdError for a missing id, and for an id that its kind can't hold. */
export function canonicalId(
  name: string,
  kind: IdKind<unknown, unknown>,
  ids: Readonly<Record<string, unknown>>,
  holder: IdHolder,
): unknown {
  const input = ids[name];
  const value = kind.value(input);
  if (value !== undefined) return value;
  if (input === undefined) throw missingId(name, holder, ids);
  throw new IdError(
    name,
    `The id "${name}" must be ${kind.holds} (kind ${kind.name}), but got ${describe(input)}.`,
    OTHER_KIND[holder],
  );
}

function missingId(name: string, holder: IdHolder, ids: object): IdError {
  const [rule, remedy] = MISSING[holder];
  const missing = name in ids ? `, in which "${name}" is undefined` : ` without "${name}"`;
  return new IdError(name, `${rule}, but got ${describe(ids)}${missing}.`, remedy);
}

function notIds(ids: unknown, names: readonly string[]): IdError {
  return new IdError(
    names[0] ?? 'ids',
    `Ids must be an object that names the namespaces from the root down, { ${names.join(', ')} }, ` +
      `but got ${describe(ids)}.`,
    'Pass such an object.',
  );
}

function unknownId(ids: Readonly<Record<string, unknown>>, names: readonly string[]): IdError {
  const unknown = Object.keys(ids).find((name) => !names.includes(name)) ?? 'an inherited property';
  return new IdError(
    unknown,
    `Ids must name only ${names.length === 0 ? 'namespaces, and global has no id' : names.join(', ')}, but got ` +
      `"${unknown}" in ${describe(ids)}.`,
    'Leave it out, or use the namespace that declares it.',
  );
}
