import { describe } from '../../errors/describe.js';
import { IdError } from '../../errors/errors.js';
import { integer, nullable, text, uuid, type IdKind } from '../../model/id-kind.js';
import { childPath, isName, NAME_RULE } from '../../model/key.js';

/** A scope's ids by the names of their namespaces, root first; `{}` is global. */
export type ScopeIds = Readonly<Record<string, number | bigint | string | null>>;

/**
 * The paths of a scope whose namespaces are not declared in this process: several where a text may be an id of several
 * kinds. An integer has the same path as its text; a UUID in capitals has one path as text and another as a UUID.
 */
export function narrowedPaths(ids: ScopeIds): string[] {
  if (typeof ids !== 'object' || ids === null || Array.isArray(ids)) {
    throw new IdError(
      'ids',
      `A scope must be an object of ids, root first, but got ${describe(ids)}.`,
      'Pass one such as { detector: 42 }.',
    );
  }
  let paths = [''];
  for (const [name, id] of Object.entries(ids)) {
    if (!isName(name) || name === 'global') {
      throw new IdError(
        name,
        `A namespace's name must be ${NAME_RULE}, but got ${describe(name)} (in ${describe(ids)}).`,
        'Use its declared name.',
      );
    }
    const texts = textsOf(name, id);
    paths = paths.flatMap((parent) => texts.map((text) => childPath(parent, name, text)));
  }
  return paths;
}

const KINDS = [nullable(integer()), text(), uuid()] as readonly IdKind<unknown, unknown>[];

function textsOf(name: string, id: unknown): string[] {
  const texts = new Set<string>();
  for (const kind of KINDS) {
    const value = kind.value(id);
    if (value !== undefined) texts.add(kind.text(value));
  }
  if (texts.size > 0) return [...texts];
  throw new IdError(
    name,
    `An id must be a safe integer, a bigint within 64 bits, a string or null, but got ${describe(id)} (as "${name}").`,
    'Pass such an id.',
  );
}
