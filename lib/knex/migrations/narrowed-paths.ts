import { describe } from '../../errors/describe.js';
import { IdError } from '../../errors/errors.js';
import { integer, nullable, text, uuid, type IdKind } from '../../model/id-kind.js';
import { childPath, isName, NAME_RULE } from '../../model/key.js';

/** A scope's ids by the names of their namespaces, root first; `{}` is global. */
export type ScopeIds = Readonly<Record<string, number | bigint | string | null>>;

/**
 * The paths of a scope whose namespaces are not declared here: several where a text may be an id of several kinds. An
 * integer's text is the same as text; a UUID in capitals is another id as text than as a UUID, so both are named.
 */
export function narrowedPaths(ids: ScopeIds): string[] {
  if (typeof ids !== 'object' || ids === null || Array.isArray(ids)) {
    throw new IdError(
      'ids',
      `A scope is an object that names its ids from the root down. Got ${describe(ids)}. Pass such as { detector: 42 }.`,
    );
  }
  let paths = [''];
  for (const [name, id] of Object.entries(ids)) {
    if (!isName(name) || name === 'global') {
      throw new IdError(
        name,
        `A namespace's name is ${NAME_RULE}. Got ${describe(name)} in ${describe(ids)}. Name the namespace as it is declared.`,
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
    `An id is a safe integer, a bigint within 64 bits, a string or null. Got ${describe(id)} as "${name}". Pass such an id.`,
  );
}
