import type { Knex } from 'knex';
import type { EntryDefinition } from '../../model/entry-definition.js';
import type { RegisteredScope } from '../../model/scope-registry.js';
import { type Capture, capture, type CapturedStatement } from './capture.js';

/** The ids of one sample: it serves every entry all of whose ids it names. */
export type Sample = Readonly<Record<string, unknown>>;

/** An entry, and what its loader sent for the samples. */
export interface ReadEntry extends Capture {
  readonly definition: EntryDefinition;
  /** `customer.orders` */
  readonly name: string;
  /** The canonical texts of the samples' ids, by name. */
  readonly samples: ReadonlyMap<string, ReadonlySet<string>>;
  /** The names of the namespaces of each scope that it depends on, root first; its own first, each once. */
  readonly lineages: readonly (readonly string[])[];
}

export function nameOfEntry({ namespace, name }: EntryDefinition): string {
  return `${namespace}.${name}`;
}

/** Runs the loader of an entry for the samples that name its ids. undefined without such a sample. Throws IdError. */
export async function readEntry(
  db: Knex,
  definition: EntryDefinition,
  samples: readonly Sample[],
): Promise<ReadEntry | undefined> {
  const named = samples
    .filter((sample) => definition.idNames.every((name) => name in sample))
    .map((sample) => Object.fromEntries(definition.idNames.map((name) => [name, sample[name]])));
  const addresses = new Map(
    named.map((ids) => definition.address(ids)).map((address) => [address.id, address] as const),
  );
  if (addresses.size === 0) return undefined;
  const ids = [...addresses.values()].map((address) => address.ids);
  const texts = new Map<string, Set<string>>(definition.idNames.map((name) => [name, new Set()]));
  for (const one of ids) for (const [name, value] of Object.entries(one)) texts.get(name)!.add(String(value));
  const lineages = [...addresses.values()].flatMap(({ scope, scopes }) => [scope, ...scopes].map(levelsOf));
  const captured = await capture(db, definition, ids);
  return {
    ...captured,
    statements: distinct(captured.statements),
    ...{ definition, name: nameOfEntry(definition), samples: texts, lineages: longest(lineages) },
  };
}

/** Equal texts once: the bindings of the first, which are those of the first sample. */
function distinct(statements: readonly CapturedStatement[]): CapturedStatement[] {
  const first = new Map<string, CapturedStatement>();
  for (const statement of statements) if (!first.has(statement.sql)) first.set(statement.sql, statement);
  return [...first.values()];
}

function levelsOf({ lineage }: RegisteredScope): string[] {
  return lineage.slice(1).map(({ level }) => level);
}

/** Without those that another begins with: a bump of the shorter path reaches the longer one anyway. */
function longest(lineages: readonly string[][]): string[][] {
  const all = new Map(lineages.map((levels) => [levels.join('/'), levels]));
  return [...all.values()].filter((levels) =>
    [...all.values()].every((other) => other.length <= levels.length || levels.some((level, i) => other[i] !== level)),
  );
}
