import { displayName } from '../postgres/identifiers.js';
import type { Knex } from 'knex';
import { withExpressions } from './expressions.js';
import { type Column, findTable, type Table } from '../postgres/catalog.js';
import {
  type TriggerBump,
  changedColumns,
  expressionColumn,
  idColumn,
  hopsOf,
  type TriggerDefinition,
  lookedUpColumns,
  namedColumns,
  positionOf,
} from './trigger-definition.js';

/** A reason why a definition can't work on the tables of the database, and the remedy. */
export interface DefinitionFault {
  readonly problem:
    'table missing' | 'table unsuitable' | 'column missing' | 'column unsuitable' | 'expression unsuitable';
  readonly message: string;
  readonly remedy: string;
}

/** The tables that a definition names. */
export interface NamedTables {
  readonly changed: Table;
  /** For each bump, in order: the tables that it looks up, in order. */
  readonly lookedUp: readonly (readonly Table[])[];
}

/** The faults of a definition that can't work on its tables. */
export interface FaultyDefinition {
  readonly faults: readonly DefinitionFault[];
  /** The watched table, if it can have triggers. */
  readonly changed: Table | undefined;
}

/** Finds the tables of a definition, or its faults. Three queries for each table. */
export async function findNamedTables(
  db: Knex,
  definition: TriggerDefinition,
): Promise<NamedTables | FaultyDefinition> {
  const { schema, table: name } = definition;
  const found = await findTable(db, schema, name);
  if (found === undefined) return { faults: [missing(schema, name, goneRemedy(definition))], changed: found };
  const { table: changed, faults: expressions } = await withExpressions(db, definition, found);
  const wrong = unsuitable(changed);
  const faults: DefinitionFault[] = [
    ...wrong,
    ...expressions.map((fault) => ({ problem: 'expression unsuitable', ...fault }) as const),
  ];
  faults.push(...missingColumns(changed, namedColumns(definition)));
  const lookedUp: Table[][] = [];
  for (const bump of definition.bumps) {
    const hops = hopsOf(bump);
    const tables: Table[] = [];
    for (const { schema: of, table: looked } of hops) {
      const table = await findTable(db, of, looked);
      if (table === undefined) faults.push(missing(of, looked, LOOKUP_REMEDY));
      else tables.push(table);
    }
    lookedUp.push(tables);
    if (tables.length === hops.length) faults.push(...badIds(bump, [changed, ...tables]));
  }
  if (faults.length === 0) return { changed, lookedUp };
  return { faults, changed: wrong.length === 0 ? changed : undefined };
}

function missing(schema: string | null, table: string, remedy: string): DefinitionFault {
  return {
    problem: 'table missing',
    message: `There is no table ${displayName(schema, table)} to watch or to look up in.`,
    remedy,
  };
}

const LOOKUP_REMEDY = 'Use an existing table, and install again: `onChangeOf(...).lookUp(...)`.';

function goneRemedy({ cache, schema, table }: TriggerDefinition): string {
  const typed = (text: string) => `'${text.replaceAll(/['\\]/g, '\\$&')}'`;
  return (
    `Run \`gencache triggers remove --cache ${cache} --table ${displayName(schema, table)}\`, or in a migration call ` +
    `\`removeTriggers(db, ${typed(table)}, { cache: ${typed(cache)}, schema: ${typed(schema)} })\`. If it has another ` +
    'name now, install on that as well.'
  );
}

const KINDS: Readonly<Record<string, string>> = { v: 'a view', m: 'a materialized view', f: 'a foreign table' };

/** The functions of a temporary table would outlive it; statements on the other kinds have no transition tables. */
function unsuitable(table: Table): DefinitionFault[] {
  const kind = table.temporary ? 'a temporary table' : (KINDS[table.kind] ?? 'no table');
  if (!table.temporary && (table.kind === 'r' || table.kind === 'p')) return [];
  return [
    {
      problem: 'table unsuitable',
      message: `${displayName(table.schema, table.name)} is ${kind}. Triggers watch tables and partitioned tables.`,
      remedy: 'Watch the tables that it is made of.',
    },
  ];
}

/** `tables`: the changed one, then those that are looked up. */
function badIds(bump: TriggerBump, tables: readonly Table[]): DefinitionFault[] {
  const faults = tables.slice(1).flatMap((table, i) => missingColumns(table, lookedUpColumns(bump, i + 1)));
  const hops = hopsOf(bump);
  const pairs = hops.flatMap(({ on }, i) => on.map((pair) => ({ ...pair, from: tables[i]!, to: tables[i + 1]! })));
  const ids = bump.ids.map((id) => ({ table: tables[positionOf(bump, id)]!, column: idColumn(id) }));
  const compared = pairs.map(({ changed: column, from: table }) => ({ table, column }));
  const images = bump.lookUp === null ? [] : changedColumns(bump).map((column) => ({ table: tables[0]!, column }));
  const used = new Map([...ids, ...images, ...compared].map((each) => [`${each.table.oid} ${each.column}`, each]));
  for (const { table, column } of used.values()) {
    const described = table.columns.get(column);
    if (described?.kind === 'other' && described.expression === undefined) faults.push(badType(table, described));
  }
  for (const { column, changed, from, to } of pairs) {
    const [ours, theirs] = [from.columns.get(changed), to.columns.get(column)];
    if (ours === undefined || theirs === undefined || ours.kind === 'other') continue;
    if (family(ours) !== family(theirs)) {
      faults.push({
        problem: 'column unsuitable',
        message:
          `A lookup must compare columns of one kind, but ${displayName(to.schema, to.name, column)} is ` +
          `${theirs.type} and ${displayName(from.schema, from.name, changed)} is ${ours.type}.`,
        remedy: 'Look up by a column that refers to the other.',
      });
    }
  }
  return faults;
}

/** An expression without a column has a fault of its own. */
const EXPRESSION = expressionColumn('');

function missingColumns(table: Table, names: readonly string[]): DefinitionFault[] {
  return names
    .filter((name) => !table.columns.has(name) && !name.startsWith(EXPRESSION))
    .map((name) => ({
      problem: 'column missing',
      message: `There is no column ${displayName(table.schema, table.name, name)}.`,
      remedy: 'Name an existing column, and install again.',
    }));
}

/** Equal values of other types may have several texts (1.0 and 1.00, trailing blanks), or one that depends on the session. */
function badType(table: Table, column: Column): DefinitionFault {
  return {
    problem: 'column unsuitable',
    message:
      `An id must be a smallint, integer, bigint, text, varchar, uuid, an enumeration, or a domain over one, but ` +
      `${displayName(table.schema, table.name, column.name)} is ${column.type}.`,
    remedy: 'Leave the id out, which bumps the scope above, or name another column.',
  };
}

function family({ kind }: Column): string {
  return kind === 'enum' ? 'text' : kind;
}
