/**
 * The caches of an outbox, as their applications publish them, to compare names, paths and ids with.
 *
 * Nothing here is a reason to refuse an installation: a migration runs before the release of the application that knows its
 * namespaces, and an application of an older release publishes nothing.
 */
import type { Knex } from 'knex';
import { nearestName } from '../../errors/nearest-name.js';
import {
  type DeclaredPath,
  declaredPaths,
  findDeclared,
  type NamespaceDeclaration,
  namesOf,
} from '../../model/cache-declaration.js';
import { mayBeText } from '../../model/id-kind.js';
import type { QueryOptions } from '../postgres/query.js';
import { type PublishedDeclaration, readDeclarations } from './declarations.js';
import type { OutboxOptions } from './location.js';
import { spellings } from './spellings.js';

/** A difference between what a program names and what is published: the fact, and what to do, in a sentence each. */
export interface NameFault {
  readonly message: string;
  readonly remedy: string;
}

/**
 * A declaration that no process has published for this time is not used any more, if another one is, in ms: a process in
 * use publishes once an hour. Two declarations that are in use together for longer are no rolling deploy.
 */
export const ROLLING_MAX_MS = 3 * 3_600_000;
/** Most names of a list in a message. */
const NAMED_MAX = 10;

export class PublishedCaches {
  readonly #all: readonly PublishedDeclaration[];

  /** `all`: the last seen first. */
  constructor(all: readonly PublishedDeclaration[]) {
    this.#all = all;
  }

  /** Two queries, neither of which fails a transaction. */
  static async read(db: Knex, outbox: OutboxOptions, options?: QueryOptions): Promise<PublishedCaches> {
    return new PublishedCaches(await readDeclarations(db, outbox, options));
  }

  /** The names of the caches, each once, in order. */
  get names(): string[] {
    return [...new Set(this.#all.map(({ cache }) => cache))].toSorted();
  }

  /** The declarations of a cache that are in use, the last seen first; empty if it has published none. */
  of(cache: string): PublishedDeclaration[] {
    const own = this.#all.filter((declaration) => declaration.cache === cache);
    return own.filter(({ lastSeenMs }) => lastSeenMs - own[0]!.lastSeenMs <= ROLLING_MAX_MS);
  }

  /** The fault of a cache's name: others are published, and it is not. */
  nameFault(cache: string): NameFault | undefined {
    const { names } = this;
    if (names.length === 0 || names.includes(cache)) return undefined;
    const near = nearestName(cache, names);
    return {
      message: `No application has ever published a cache of the name "${cache}"; published are: ${listed(names)}.`,
      remedy:
        near === undefined
          ? 'Use the `name` of the GenerationalCache. If it is that, its application has not yet run with an outbox of this release, or its role lacks the right to publish.'
          : `Did you mean "${near}"? Use the \`name\` of the GenerationalCache.`,
    };
  }

  /** The fault of a list of namespaces, root first; undefined where a declaration in use has it, and before the first. */
  namespaceFault(cache: string, names: readonly string[]): NameFault | undefined {
    const trees = this.of(cache);
    if (trees.length === 0 || trees.some((tree) => findDeclared(tree, names) !== undefined)) return undefined;
    const declared = [
      ...new Map(trees.flatMap((tree) => declaredPaths(tree)).map((path) => [namesOf(path), path])).values(),
    ];
    const meant = meantBy(names, declared);
    const has = declared.length === 0 ? 'declares none' : `declares ${listed(declared.map(namesOf))}`;
    return {
      message: `The cache ${cache} has no namespace ${names.join('/')}: it ${has}.`,
      remedy:
        (meant === undefined ? '' : `Did you mean \`${meant}\`? `) +
        'Name declared namespaces, from the root down. If a new release declares it, this ends with its first load.',
    };
  }

  /**
   * The fault of a path: of its namespaces, or of an id that no reader can have in any spelling that a relay bumps; undefined
   * for a path that may have readers.
   */
  pathFault(cache: string, path: string): NameFault | undefined {
    if (path === '') return undefined;
    const names = path.split('/').map((segment) => segment.slice(0, segment.indexOf('=')));
    const fault = this.namespaceFault(cache, names);
    if (fault !== undefined) return fault;
    const branches = this.branches(cache, names);
    const all = spellings(path).map(idsOf);
    const [branch] = branches;
    if (branch === undefined || all.some((ids) => branches.some((each) => oddId(each, ids) === undefined)))
      return undefined;
    const { name, kind } = oddId(branch, idsOf(path)) ?? branch[0]!;
    return {
      message: `No reader of the cache ${cache} can have the scope ${path}: the ids of ${name} are of the kind ${kind}.`,
      remedy: 'Write an id of that kind, as keys have it. In a trigger, name the column that has such ids.',
    };
  }

  /** The namespace of these names, with those above it, in each declaration in use that has it. */
  branches(cache: string, names: readonly string[]): DeclaredPath[] {
    return this.of(cache)
      .map((tree) => findDeclared(tree, names))
      .filter((path) => path !== undefined);
  }
}

function idsOf(path: string): string[] {
  return path.split('/').map((segment) => segment.slice(segment.indexOf('=') + 1));
}

/** The first namespace whose kind can't have its id; undefined if all can. */
function oddId(branch: DeclaredPath, ids: readonly string[]): NamespaceDeclaration | undefined {
  return branch.find(({ kind }, i) => !mayBeText(kind, ids[i]!));
}

function listed(names: readonly string[]): string {
  const more = names.length - NAMED_MAX;
  return names.slice(0, NAMED_MAX).join(', ') + (more > 0 ? ` and ${more} more` : '');
}

/** The declared namespace that these names probably stand for: in another order, without those above, or misspelt. */
function meantBy(names: readonly string[], declared: readonly DeclaredPath[]): string | undefined {
  const all = declared.map((path) => path.map(({ name }) => name));
  const shown = (path: readonly string[] | undefined) => path?.join('/');
  const sorted = (path: readonly string[]) => path.toSorted().join('/');
  const reordered = all.find((path) => sorted(path) === sorted(names));
  if (reordered !== undefined) return shown(reordered);
  const below = all.find((path) => path.at(-1) === names.at(-1) && names.every((name) => path.includes(name)));
  if (below !== undefined) return shown(below);
  const known = [...new Set(all.flat())];
  const corrected = names.map((name) => (known.includes(name) ? name : nearestName(name, known)));
  if (corrected.includes(undefined)) return undefined;
  return (
    shown(all.find((path) => path.join('/') === corrected.join('/'))) ??
    shown(all.find((path) => path.at(-1) === corrected.at(-1) && corrected.every((name) => path.includes(name!))))
  );
}
