import type { PublishedDeclaration } from '../../knex/outbox/declarations.js';
import { type PublishedCaches, ROLLING_MAX_MS } from '../../knex/outbox/published-caches.js';
import { declaredPaths, type NamespaceContents, namesOf } from '../../model/cache-declaration.js';
import { duration } from './duration.js';
import { broken, type Finding, ok, warn } from './finding.js';

const CHECK = 'namespaces';

/** The findings about what the applications of a cache publish: nothing, one tree of namespaces, or several. */
export function declarationFindings(
  published: PublishedCaches,
  cache: string,
  { hasTriggers }: { readonly hasTriggers: boolean },
): Finding[] {
  const fault = published.nameFault(cache);
  if (fault !== undefined) return hasTriggers ? [broken(CHECK, fault.message, fault.remedy)] : [];
  const trees = distinctTrees(published.of(cache));
  const [latest] = trees;
  if (latest === undefined) return hasTriggers ? [warn(CHECK, UNPUBLISHED, PUBLISH)] : [];
  return [
    ok(
      CHECK,
      `${latest.application || 'an application'} published them ${duration(latest.lastSeenMs)} ago: ${shown(latest)}`,
    ),
    ...trees.slice(1).map((other) => besideFinding(latest, other)),
  ];
}

const UNPUBLISHED = 'no application has published its namespaces: those that triggers name are unchecked';
const PUBLISH =
  'An application of this release publishes at its first load or bump. Its role needs select, insert, update and delete on gencache_declaration.';

/** One declaration for each distinct tree of namespaces and kinds, the last seen first; it was first seen as the oldest of them. */
function distinctTrees(declarations: readonly PublishedDeclaration[]): PublishedDeclaration[] {
  const trees = new Map<string, PublishedDeclaration>();
  for (const declaration of declarations) {
    const text = shown(declaration);
    const known = trees.get(text);
    const firstSeenMs = Math.max(known?.firstSeenMs ?? 0, declaration.firstSeenMs);
    trees.set(text, { ...(known ?? declaration), firstSeenMs });
  }
  return [...trees.values()];
}

/** `org (integer), org/env (nullable text)`. */
function shown(tree: NamespaceContents): string {
  return [...kindsOf(tree)].map(([path, kind]) => `${path} (${kind})`).join(', ') || 'none';
}

function kindsOf(tree: NamespaceContents): Map<string, string> {
  return new Map(declaredPaths(tree).map((path) => [namesOf(path), path.at(-1)!.kind]));
}

/**
 * Two trees in use at the same time. A rolling deploy ends, so two trees that both have been published for hours are two
 * applications. Where one namespace has ids of two kinds, a bump by one may miss readers of the other.
 */
function besideFinding(latest: PublishedDeclaration, other: PublishedDeclaration): Finding {
  const [ours, theirs] = [kindsOf(latest), kindsOf(other)];
  const only = (a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>) =>
    [...a.keys()].filter((path) => !b.has(path));
  const conflicts = [...ours].filter(([path, kind]) => theirs.has(path) && theirs.get(path) !== kind);
  const differences = [
    ...conflicts.map(([path, kind]) => `ids of ${path} are ${kind} and ${theirs.get(path)}`),
    ...[only(ours, theirs)]
      .filter(({ length }) => length > 0)
      .map((paths) => `the first alone has ${paths.join(', ')}`),
    ...[only(theirs, ours)]
      .filter(({ length }) => length > 0)
      .map((paths) => `the other alone has ${paths.join(', ')}`),
  ].join('; ');
  const who = (tree: PublishedDeclaration) =>
    `${tree.application || 'an application'} ${duration(tree.lastSeenMs)} ago`;
  const fact = `two trees of namespaces are in use, by ${who(latest)} and ${who(other)}: ${differences}`;
  const [older, newer] = latest.firstSeenMs >= other.firstSeenMs ? [latest, other] : [other, latest];
  const isRolling = newer.firstSeenMs - older.lastSeenMs <= ROLLING_MAX_MS;
  if (isRolling) {
    return conflicts.length === 0
      ? ok(CHECK, `${fact}; a rolling deploy has that for a while`)
      : warn(CHECK, `${fact}; a rolling deploy has that for a while`, 'Finish the deploy, then bump global.');
  }
  return conflicts.length === 0
    ? warn(CHECK, fact, 'Declare the same namespaces in all programs that use one cache, in a module that they share.')
    : broken(CHECK, fact, 'Declare one kind of ids in all programs that use one cache, in a module that they share.');
}
