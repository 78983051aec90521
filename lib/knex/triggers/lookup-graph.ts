/**
 * Whether lookups find every scope (docs/protocol.md, rule 3): the graph of the tables that a cache watches and looks up.
 *
 * A lookup finds the scopes of a changed row through rows of other tables, after the commit. A row on its way that is gone
 * or changed by then is not found. So each table on the way must bump, for itself, a scope at or above the one that the
 * lookup would have found: by its own columns, or by a lookup of its own, for which the same holds.
 *
 *     covering   a bump of a table on the way whose scope is at or above that of the lookup, for whatever rows
 *     sound      of a lookup: each table on its way has covering bumps, sound themselves, for each of its operations that
 *                matters, and for an UPDATE of each column that the lookup reads.
 *                A bump by the row's own columns is always sound
 *
 * **Invariant.** If all lookups are sound, then for each combination of rows that named a scope, and of which rows have
 * changed, an event finds that scope or one above. Proof: each sound bump has a rank, 0 by own columns, else one more than
 * those it rests on. Of the rows that changed, take the one whose covering bump has the least rank. Its lookup goes through
 * rows of lower rank alone; none of them has changed, or it would have been taken, so all are found.
 *
 * Two tables that look up each other have no rank: a cascade that deletes a row of each finds nothing on either side.
 */
import type { Knex } from 'knex';
import { type ForeignKey, foreignKeys } from '../postgres/catalog.js';
import { type View, viewsAmong } from './views.js';
import { displayName } from '../postgres/identifiers.js';
import { EqualColumns } from './equal-columns.js';
import {
  changedColumns,
  hopsOf,
  idColumn,
  lookedUpColumns,
  positionOf,
  ROW_OPERATIONS,
  type RowOperation,
  type TriggerBump,
  type TriggerDefinition,
  watchedColumns,
} from './trigger-definition.js';

/** A reason why a lookup may miss a scope, and the remedy. */
export interface LookupFault {
  readonly problem: 'looked-up table not watched' | 'lookup cycle' | 'lookup without end';
  /** The looked-up table whose changes a lookup may miss. */
  readonly at: TableName;
  readonly message: string;
  readonly remedy: string;
}

/** A bump, with its definition. */
interface Bump {
  readonly definition: TriggerDefinition;
  readonly bump: TriggerBump;
}

/** A lookup, as a list of tables: the changed one, each that is looked up, and last those of which looked-up views are made. */
interface Way extends Bump {
  readonly tables: readonly TableOnWay[];
  /** The columns that the lookup compares; `2.id` is a column of the third table. */
  readonly equal: EqualColumns;
}

interface TableOnWay extends TableName {
  readonly isView: boolean;
  /** Of a table below a view: the columns that the view reads. */
  readonly columns?: readonly string[];
}

interface TableName {
  readonly schema: string | null;
  readonly table: string;
}

/** What the graph has of the catalog. */
export interface GraphFacts {
  readonly keys: readonly ForeignKey[];
  /** The looked-up views. */
  readonly views: readonly View[];
}

/** The foreign keys, and the views, of the tables that these definitions watch and look up. Two queries, and a few for each view. */
export async function graphFacts(db: Knex, definitions: readonly TriggerDefinition[]): Promise<GraphFacts> {
  const hops = definitions.flatMap(({ bumps }) => bumps.flatMap(hopsOf));
  if (hops.length === 0) return { keys: [], views: [] };
  return {
    keys: await foreignKeys(db, [...new Set([...definitions, ...hops].map(({ schema }) => schema!))]),
    views: await viewsAmong(db, hops),
  };
}

/** The faults of a definition's lookups, among all definitions of its cache. `all` contains the definition. */
export function lookupFaults(
  definition: TriggerDefinition,
  all: readonly TriggerDefinition[],
  facts: GraphFacts,
): LookupFault[] {
  const graph = new LookupGraph(
    all.filter(({ cache }) => cache === definition.cache),
    facts,
  );
  return graph.faultsOf(definition);
}

/** The lookups of these definitions that may miss a scope, with their faults. All definitions are of one cache. */
export function faultyLookups(
  all: readonly TriggerDefinition[],
  facts: GraphFacts,
): Map<TriggerBump, readonly LookupFault[]> {
  const graph = new LookupGraph(all, facts);
  const faults = all.flatMap((definition) =>
    definition.bumps.map((bump) => [bump, graph.faultsOf({ ...definition, bumps: [bump] })] as const),
  );
  return new Map(faults.filter(([, found]) => found.length > 0));
}

class LookupGraph {
  readonly #bumps: readonly Bump[];
  /** The lookups whose soundness is proven. */
  readonly #sound = new Set<TriggerBump>();
  readonly #facts: GraphFacts;

  constructor(definitions: readonly TriggerDefinition[], facts: GraphFacts) {
    this.#facts = facts;
    this.#bumps = definitions.flatMap((definition) => definition.bumps.map((bump) => ({ definition, bump })));
    const ways = this.#bumps.filter(({ bump }) => bump.lookUp !== null).map((each) => this.#wayOf(each));
    let before;
    do {
      before = this.#sound.size;
      for (const way of ways) if (this.#isSound(way)) this.#sound.add(way.bump);
    } while (this.#sound.size > before);
  }

  faultsOf(definition: TriggerDefinition): LookupFault[] {
    return definition.bumps
      .filter((bump) => bump.lookUp !== null)
      .flatMap((bump) => this.#faultsOn(this.#wayOf({ definition, bump })));
  }

  #isSound(way: Way): boolean {
    return way.tables.every(
      (table, i) => i === 0 || table.isView || this.#uncovered(way, i, (each) => this.#isProven(each)).length === 0,
    );
  }

  #wayOf(each: Bump): Way {
    return wayOf(each, this.#facts.views);
  }

  #isProven({ bump }: Bump): boolean {
    return bump.lookUp === null || this.#sound.has(bump);
  }

  /** The operations of the table at a position for which no covering bump satisfies a condition. */
  #uncovered(way: Way, position: number, satisfies: (each: Bump) => boolean): RowOperation[] {
    const covering = this.#bumps.filter((each) => this.#covers(each, way, position) && satisfies(each));
    return this.#operationsThatMatter(way, position).filter(
      (operation) => !isWatched(way, position, operation, covering),
    );
  }

  /**
   * All operations, but INSERT where a foreign key proves that it can't matter: the table before on the way refers to this
   * one, so a row that is new here is on no way until a row there is inserted or updated, in the same transaction or a later
   * one. If that change is covered, its event finds the new row. The new row must not take the place of another one with its
   * key, unless the bumps of the other one name the same scope.
   */
  #operationsThatMatter(way: Way, position: number): readonly RowOperation[] {
    // The tables of a view have no foreign key on the way.
    if (position > hopsOf(way.bump).length) return ROW_OPERATIONS;
    const [from, to] = [way.tables[position - 1]!, way.tables[position]!];
    const { on } = hopsOf(way.bump)[position - 1]!;
    const key = this.#facts.keys.find(
      ({ schema, table, columns, toSchema, toTable, toColumns, replaces }) =>
        isSame({ schema, table }, from) &&
        isSame({ schema: toSchema, table: toTable }, to) &&
        columns.every((column, i) => on.some((pair) => pair.changed === column && pair.column === toColumns[i])) &&
        (replaces === 'never' || this.#isCoveredByKey(way, position, toColumns)),
    );
    if (key === undefined) return ROW_OPERATIONS;
    const referring = this.#bumps.filter(
      (each) => each.bump === way.bump || (this.#isProven(each) && this.#covers(each, way, position - 1)),
    );
    const inserted = position > 1 || isWatched(way, 0, 'insert', referring);
    const updated = key.columns.every((column) =>
      referring.some(({ definition }) => definition.operations.includes('update') && watches(definition, [column])),
    );
    return inserted && updated ? ROW_OPERATIONS.filter((operation) => operation !== 'insert') : ROW_OPERATIONS;
  }

  /** Whether a table is covered by the columns of a key alone, so that a row with the key of another one has its scope. */
  #isCoveredByKey(way: Way, position: number, key: readonly string[]): boolean {
    return this.#bumps.some(
      (each) =>
        each.bump.lookUp === null &&
        each.bump.ids.every(({ column }) => key.includes(column)) &&
        this.#covers(each, way, position) &&
        (['update', 'delete'] as const).every((operation) => isWatched(way, position, operation, [each])),
    );
  }

  #covers(each: Bump, way: Way, position: number): boolean {
    if (each.bump.when !== undefined && each.bump !== way.bump) return false;
    return isSame(each.definition, way.tables[position]!) && isAtOrAbove(this.#wayOf(each), way, position);
  }

  #faultsOn(way: Way): LookupFault[] {
    return way.tables.flatMap((table, i): LookupFault[] => {
      if (i === 0 || table.isView) return [];
      const name = displayName(table.schema, table.table);
      const watched = this.#bumps.filter(({ definition }) => isSame(definition, table));
      const missing = this.#operationsThatMatter(way, i).filter((operation) => !isWatched(way, i, operation, watched));
      if (missing.length > 0) {
        const read = columnsAt(way, i).map((column) => displayName(null, column));
        const update =
          missing.includes('update') && watched.some(({ definition }) => definition.operations.includes('update'));
        return [
          {
            problem: 'looked-up table not watched',
            at: table,
            message:
              `The looked-up table ${name} has no triggers for ${list(missing, 'and')}` +
              `${update ? ` of ${list(read, 'or')}` : ''}. A lookup misses rows that another transaction adds, ` +
              'changes or deletes at the same time, unless these rows bump for themselves.',
            remedy: remedyFor(way, i, watched.length > 0),
          },
        ];
      }
      const covered = this.#uncovered(way, i, (each) => this.#isProven(each)).length === 0;
      if (covered || this.#sound.has(way.bump)) return [];
      const remedy = remedyFor(way, i, true, this.#restsOn(way, i).length > 0);
      const rests = this.#restsOn(way, i);
      const cycle = this.#cycleFrom(way);
      if (cycle !== undefined) {
        return [
          {
            problem: 'lookup cycle',
            at: table,
            message:
              `The lookups go in a circle: ${cycle.map((each) => displayName(each.schema, each.table)).join(' -> ')}. ` +
              'Where one transaction, or a cascade, changes or deletes rows of all of them, no lookup finds the others, and ' +
              'nothing is bumped.',
            remedy,
          },
        ];
      }
      // The fault of a lookup on which this one rests is reported there.
      if (rests.length > 0 && this.#uncovered(way, i, () => true).length === 0) return [];
      return [
        {
          problem: 'lookup without end',
          at: table,
          message: `The looked-up table ${name} bumps no scope at or above ${pathOf(way.bump)} for ${list(
            this.#uncovered(way, i, () => true),
            'and',
          )}. A lookup misses rows that are changed or deleted by then, unless these rows bump for themselves.`,
          remedy,
        },
      ];
    });
  }

  /** The lookups, not proven, that would cover the table at a position. */
  #restsOn(way: Way, position: number): Way[] {
    return this.#bumps
      .filter((each) => !this.#isProven(each) && this.#covers(each, way, position))
      .map((each) => this.#wayOf(each));
  }

  /** The tables of a circle of lookups that rest on each other, from that of the given one to itself. */
  #cycleFrom(start: Way): TableName[] | undefined {
    const seen = new Set<TriggerBump>();
    const search = (way: Way): TableName[] | undefined => {
      for (const position of way.tables.keys()) {
        if (position === 0) continue;
        for (const next of this.#restsOn(way, position)) {
          if (next.bump === start.bump) return [way.tables[0]!, start.tables[0]!];
          if (seen.has(next.bump)) continue;
          seen.add(next.bump);
          const rest = search(next);
          if (rest !== undefined) return [way.tables[0]!, ...rest];
        }
      }
      return undefined;
    };
    return search(start);
  }
}

/** Whether the definitions of these bumps watch an operation of the table at a position as far as the lookup reads it. */
function isWatched(way: Way, position: number, operation: RowOperation, bumps: readonly Bump[]): boolean {
  const watching = bumps.filter(({ definition }) => definition.operations.includes(operation));
  if (operation !== 'update') return watching.length > 0;
  return columnsAt(way, position).every((column) => watching.some(({ definition }) => watches(definition, [column])));
}

function watches(definition: TriggerDefinition, columns: readonly string[]): boolean {
  const watched = watchedColumns(definition);
  return watched === null || columns.every((column) => watched.includes(column));
}

function wayOf(each: Bump, views: readonly View[]): Way {
  const { definition, bump } = each;
  const hops = hopsOf(bump);
  const equal = new EqualColumns();
  for (const [i, { on }] of hops.entries()) {
    for (const pair of on) equal.equate(`${i + 1}.${pair.column}`, `${i}.${pair.changed}`);
  }
  const viewOf = ({ schema, table }: TableName) => views.find((view) => view.schema === schema && view.view === table);
  const tables: TableOnWay[] = [
    { schema: definition.schema, table: definition.table, isView: false },
    ...hops.map((hop) => ({ schema: hop.schema, table: hop.table, isView: viewOf(hop) !== undefined })),
  ];
  for (const [i, hop] of hops.entries()) {
    const view = viewOf(hop);
    if (view === undefined) continue;
    const from = tables.length;
    tables.push(...view.tables.map((table) => ({ ...table, isView: false })));
    for (const [name, { position, column }] of view.columns) {
      equal.equate(`${i + 1}.${name}`, `${from + position}.${column}`);
    }
    for (const [one, other] of view.equal) {
      equal.equate(`${from + one.position}.${one.column}`, `${from + other.position}.${other.column}`);
    }
  }
  return { ...each, tables, equal };
}

function classAt({ equal }: Way, position: number, column: string): string {
  return equal.classOf(`${position}.${column}`);
}

/** The position and column of each id of the bump. */
function idsOf({ bump }: Way): { readonly namespace: string; readonly position: number; readonly column: string }[] {
  return bump.ids.map((id) => ({ namespace: id.namespace, column: idColumn(id), position: positionOf(bump, id) }));
}

/** The columns that a lookup reads of the table at a position. */
function columnsAt(way: Way, position: number): readonly string[] {
  const { columns } = way.tables[position]!;
  return columns ?? (position === 0 ? changedColumns(way.bump) : lookedUpColumns(way.bump, position));
}

/**
 * Whether a bump of the table at a position finds, for each combination of rows that the lookup `way` can find, a scope at or
 * above the one of `way`. Its tables must be some of those of `way`, compared by columns that `way` compares, too; so it finds
 * the rows of that combination, and perhaps more.
 */
function isAtOrAbove(covering: Way, way: Way, position: number): boolean {
  const matches = (at: readonly number[]): boolean => {
    const next = at.length;
    const hop = hopsOf(covering.bump)[next - 1];
    if (hop !== undefined) {
      return way.tables.some(
        (table, i) =>
          isSame(covering.tables[next]!, table) &&
          hop.on.every((pair) => classAt(way, i, pair.column) === classAt(way, at[next - 1]!, pair.changed)) &&
          matches([...at, i]),
      );
    }
    const [short, long] = [idsOf(covering), idsOf(way)];
    return short.every(({ namespace, column, position: own }, i) => {
      const id = long[i];
      return id?.namespace === namespace && classAt(way, at[own]!, column) === classAt(way, id.position, id.column);
    });
  };
  return matches([position]);
}

function isSame(one: TableName, other: TableName): boolean {
  return one.schema === other.schema && one.table === other.table;
}

/** The sentence that makes the table at a position bump for itself. `isWatched`: whether it has triggers of this cache; `looksBack`: a lookup of the changed table. */
function remedyFor(way: Way, position: number, isWatched: boolean, looksBack = false): string {
  const own = idsAt(way, position);
  const sentence = ({ schema, table }: TableName, ids: typeof own, install: boolean) => {
    const pairs = ids.map(({ namespace, column }) => `${namespace}: ${typed(column)}`).join(', ');
    const bump = `.bump(${pairs === '' ? '{}' : `{ ${pairs} }`})`;
    return install
      ? `\`onChangeOf(db, ${typed(table)}, { cache: ${typed(way.definition.cache)} })${bump}.install()\``
      : `add \`${bump}\` to the triggers of ${displayName(schema, table)}`;
  };
  const table = way.tables[position]!;
  if (own.length > 0 || way.bump.ids.length === 0) {
    return `Let the table bump by its own columns, for all operations: ${sentence(table, own, !isWatched)}.`;
  }
  const onward = lookupFrom(way, position);
  if (onward !== undefined) {
    const begun = isWatched ? '' : `onChangeOf(db, ${typed(table.table)}, { cache: ${typed(way.definition.cache)} })`;
    return (
      'Let the table bump by a lookup of its own, for all operations: ' +
      (isWatched
        ? `add \`${onward}\` to the triggers of ${displayName(table.schema, table.table)}.`
        : `\`${begun}${onward}.install()\`.`)
    );
  }
  const first = idsAt(way, 0);
  if (first.length > 0 && isWatched) {
    const back =
      position === 1 && !looksBack
        ? hopsOf(way.bump)[0]!
            .on.map(({ column, changed }) => `${typedKey(changed)}: ${typed(column)}`)
            .join(', ')
        : '';
    const named = first.map(({ namespace, column }) => `${namespace}: ${typed(column)}`).join(', ');
    const lookBack =
      back === ''
        ? ''
        : `, and \`.lookUp(${typed(way.tables[0]!.table)}, { ${back} }).bump({ ${named} })\` to those of ` +
          displayName(table.schema, table.table);
    return `Let the changed table bump by its own columns, for all operations: ${sentence(way.tables[0]!, first, false)}${lookBack}.`;
  }
  return (
    `Its own columns have no id of ${pathOf(way.bump)}, so let it bump everything: ${sentence(table, [], !isWatched)}; or ` +
    'put an id in front that its columns have, and declare its namespace above the others.'
  );
}

/** The rest of the way from the table at a position, as a lookup of its own, as far as a table that has the first ids. */
function lookupFrom(way: Way, position: number): string | undefined {
  const hops = hopsOf(way.bump);
  if (position > hops.length) return lookupWithin(way, position);
  for (let end = position + 1; end <= hops.length; end += 1) {
    const ids: string[] = [];
    for (const id of idsOf(way)) {
      if (id.position < position || id.position > end) break;
      const place =
        id.position === end
          ? typed(id.column)
          : id.position === position
            ? `changed(${typed(id.column)})`
            : `lookedUp(${typed(way.tables[id.position]!.table)}, ${typed(id.column)})`;
      ids.push(`${id.namespace}: ${place}`);
    }
    if (ids.length === 0) continue;
    const calls = hops.slice(position, end).map(({ table, on }, i) => {
      const pairs = on.map(({ column, changed }) => `${typedKey(column)}: ${typed(changed)}`).join(', ');
      return `.${i === 0 ? 'lookUp' : 'thenLookUp'}(${typed(table)}, { ${pairs} })`;
    });
    return `${calls.join('')}.bump({ ${ids.join(', ')} })`;
  }
  return undefined;
}

/** The same for a table of a view: a lookup of another table of the way that has the first ids, by columns that the view compares. */
function lookupWithin(way: Way, position: number): string | undefined {
  for (const [i, { table, isView }] of way.tables.entries()) {
    const ids = idsAt(way, i);
    if (i === 0 || isView || i === position || ids.length === 0) continue;
    const pairs = columnsAt(way, position).flatMap((asked) => {
      const found = columnsAt(way, i).find((column) => classAt(way, i, column) === classAt(way, position, asked));
      return found === undefined ? [] : [`${typedKey(found)}: ${typed(asked)}`];
    });
    if (pairs.length === 0) continue;
    const bumped = ids.map(({ namespace, column }) => `${namespace}: ${typed(column)}`).join(', ');
    return `.lookUp(${typed(table)}, { ${pairs.join(', ')} }).bump({ ${bumped} })`;
  }
  return undefined;
}

/** The longest part of the lookup's path, from the root, for which the table at a position has the ids. */
function idsAt(way: Way, position: number): { readonly namespace: string; readonly column: string }[] {
  const ids: { readonly namespace: string; readonly column: string }[] = [];
  for (const id of idsOf(way)) {
    const wanted = classAt(way, id.position, id.column);
    const column =
      id.position === position
        ? id.column
        : columnsAt(way, position).find((each) => classAt(way, position, each) === wanted);
    if (column === undefined) break;
    ids.push({ namespace: id.namespace, column });
  }
  return ids;
}

function pathOf({ ids }: TriggerBump): string {
  return ids.length === 0 ? 'global' : `{ ${ids.map(({ namespace }) => namespace).join(', ')} }`;
}

function typedKey(name: string): string {
  return /^[A-Za-z_]\w*$/.test(name) ? name : typed(name);
}

function typed(value: string): string {
  return `'${value.replaceAll(/['\\]/g, '\\$&')}'`;
}

function list(items: readonly string[], word: string): string {
  return items.length < 2 ? items.join('') : `${items.slice(0, -1).join(', ')} ${word} ${items.at(-1)!}`;
}
