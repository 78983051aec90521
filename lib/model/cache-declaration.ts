/**
 * What a cache is, as its application declares it: the form in which it is published, for programs that have paths and
 * no namespaces (triggers, a relay, the command line).
 */
export interface CacheDeclaration extends NamespaceContents {
  readonly cache: string;
  /** Null without a bound. */
  readonly maxStalenessMs: number | null;
  readonly schemaVersion: number;
  /** Version of gencache. */
  readonly library: string;
}

/** The contents of a namespace; of global, for a cache. Each list is sorted, so that equal trees have equal texts. */
export interface NamespaceContents {
  readonly entries: readonly string[];
  readonly namespaces: readonly NamespaceDeclaration[];
}

export interface NamespaceDeclaration extends NamespaceContents {
  readonly name: string;
  /** The name of the kind of its ids: `integer`, `nullable uuid`. */
  readonly kind: string;
}

/** A declared namespace with those above it, root first. */
export type DeclaredPath = readonly NamespaceDeclaration[];

/** All namespaces of a tree, each after those above it. */
export function declaredPaths(tree: NamespaceContents, above: DeclaredPath = []): DeclaredPath[] {
  return tree.namespaces.flatMap((namespace) => {
    const path = [...above, namespace];
    return [path, ...declaredPaths(namespace, path)];
  });
}

/** The namespace of these names, root first, with those above it; undefined if the tree has none. */
export function findDeclared(tree: NamespaceContents, names: readonly string[]): DeclaredPath | undefined {
  const path: NamespaceDeclaration[] = [];
  let { namespaces } = tree;
  for (const name of names) {
    const found = namespaces.find((namespace) => namespace.name === name);
    if (found === undefined) return undefined;
    path.push(found);
    ({ namespaces } = found);
  }
  return path;
}

/** `detector/environment`; `global` without a name. */
export function namesOf(path: DeclaredPath): string {
  return path.map(({ name }) => name).join('/') || 'global';
}
