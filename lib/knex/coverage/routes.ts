import type { CapturedStatement } from './capture.js';
import {
  type Equality,
  holdsIn,
  type Occurrence,
  type OccurrenceColumn,
  type QueryGraph,
  type Region,
} from './query-graph.js';
import type { ForeignKey, ReadRelation } from './relations.js';

/** A step of a look-up: the rows of a table whose columns equal those of the table before. */
export interface Hop {
  readonly relation: ReadRelation;
  readonly occurrence: Occurrence;
  readonly on: readonly { readonly column: string; readonly changed: string }[];
}

/** How a changed row leads to the ids of a scope. */
export interface Route {
  /** Root first: a column of the changed row, or of the last hop's table. */
  readonly ids: readonly {
    readonly namespace: string;
    readonly column: string;
    readonly of: 'changed' | 'looked up';
  }[];
  /** Empty where the row's own columns have the ids. */
  readonly hops: readonly Hop[];
  /** Whether all namespaces of the entry are named. */
  readonly complete: boolean;
  /** Whether a foreign key stands in for a join that the query does not show. */
  readonly byForeignKey: boolean;
}

export interface EntryQueries {
  readonly statements: readonly { readonly statement: CapturedStatement; readonly graph: QueryGraph }[];
  /** The canonical texts of the samples' ids, by name. */
  readonly samples: ReadonlyMap<string, ReadonlySet<string>>;
  /** The names of the namespaces of each scope that the entry depends on, root first; its own scope first. */
  readonly lineages: readonly (readonly string[])[];
  readonly relations: ReadonlyMap<string, ReadRelation>;
  readonly foreignKeys: readonly ForeignKey[];
}

const HOPS_MAX = 4;

/** The equalities of an entry's queries, followed from a table to the ids of the entry. */
export class Routes {
  readonly occurrences: readonly Occurrence[];
  readonly #lineages: EntryQueries['lineages'];
  readonly #relations: EntryQueries['relations'];
  readonly #equalities: readonly Equality[];
  readonly #restrictions: readonly {
    readonly column: OccurrenceColumn;
    readonly region: Region;
    readonly names: readonly string[];
  }[];
  readonly #keys: readonly ForeignKey[];
  readonly #guesses: readonly Equality[];

  constructor({ statements, samples, lineages, relations, foreignKeys }: EntryQueries) {
    this.#lineages = lineages;
    this.#relations = relations;
    this.occurrences = statements.flatMap(({ graph }) => graph.occurrences);
    this.#equalities = statements.flatMap(({ graph }) => graph.equalities);
    this.#restrictions = statements.flatMap(({ statement, graph }) =>
      graph.restrictions.map(({ column, region, parameters }) => ({
        ...{ column, region },
        names: parameters.flatMap((number) => namesOf(statement.bindings[number - 1], this.#name(column), samples)),
      })),
    );
    this.#keys = foreignKeys;
    this.#guesses = guesses(
      statements.map(({ graph }) => graph.occurrences),
      foreignKeys,
    );
  }

  /** The best route from a row of this occurrence: the one to the narrowest scope, then the shortest; undefined without one. */
  from(occurrence: Occurrence): Route | undefined {
    if (this.#lineages.every(({ length }) => length === 0)) return GLOBAL;
    return (
      this.#search(occurrence, this.#equalities) ?? this.#search(occurrence, [...this.#equalities, ...this.#guesses])
    );
  }

  /** The columns of this occurrence that hold the id, by the query's conditions. */
  columnsOf(occurrence: Occurrence, namespace: string): string[] {
    return this.#columnsOf(occurrence, namespace, this.#equalities).map((column) => this.#name({ occurrence, column }));
  }

  /** The occurrences that the query joins to this one by these pairs of columns, at least. */
  joined(occurrence: Occurrence, table: { schema: string; name: string }, on: Hop['on']): Occurrence[] {
    return this.#hops(occurrence, this.#equalities)
      .filter(({ relation }) => relation.schema === table.schema && relation.name === table.name)
      .filter((hop) =>
        on.every((pair) => hop.on.some(({ column, changed }) => column === pair.column && changed === pair.changed)),
      )
      .map((hop) => hop.occurrence);
  }

  /**
   * The tables that refer to this one by a foreign key that the query joins by, for one occurrence: a row without them is in
   * no result, and they can't be there without it. So their own changes tell when such a row appears and disappears.
   */
  referring(occurrence: Occurrence): ReadRelation[] {
    return this.#keys
      .filter(({ references }) => references === occurrence.relation)
      .flatMap((key) => {
        const joined = this.occurrences.filter(({ relation }) => relation === key.table);
        const isJoined = (other: Occurrence) =>
          key.columns.every((column, i) =>
            this.#equalities.some(({ left, right, region }) => {
              if (!holdsIn(region, occurrence.region)) return false;
              const here = { occurrence, column: key.referenced[i]! };
              const there = { occurrence: other, column };
              return (same(left, here) && same(right, there)) || (same(left, there) && same(right, here));
            }),
          );
        return joined.some(isJoined) ? [this.#relations.get(key.table)!] : [];
      });
  }

  /**
   * The row's own columns, if they name a scope below global: a chain of look-ups must end at a table whose rows do, since a
   * look-up finds no rows that the same transaction deletes. Else the nearest such table; of several as near the one reached
   * by primary keys, then the one that names the most.
   */
  #search(start: Occurrence, equalities: readonly Equality[]): Route | undefined {
    const byForeignKey = equalities.length > this.#equalities.length;
    let states: { at: Occurrence; hops: readonly Hop[] }[] = [{ at: start, hops: [] }];
    const met = new Set([start]);
    for (let depth = 0; depth <= HOPS_MAX && states.length > 0; depth++) {
      const routes = states.flatMap(({ at, hops }) =>
        this.#lineages
          .map((lineage) => ({ ids: this.#idsAt(lineage, start, at, equalities), lineage }))
          .filter(({ ids }) => ids.length > 0)
          .map(({ ids, lineage }) => ({ ids, hops, complete: ids.length === lineage.length, byForeignKey })),
      );
      if (routes.length > 0) return routes.reduce((best, route) => (isBetter(route, best) ? route : best));
      states = states.flatMap(({ at, hops }) =>
        this.#hops(at, equalities)
          .filter((hop) => !met.has(hop.occurrence) && met.add(hop.occurrence))
          .map((hop) => ({ at: hop.occurrence, hops: [...hops, hop] })),
      );
    }
    return undefined;
  }

  /** As many of the namespaces, root first, as the changed row and the row at the end of the hops name. */
  #idsAt(lineage: readonly string[], start: Occurrence, at: Occurrence, equalities: readonly Equality[]): Route['ids'] {
    const ids: Route['ids'][number][] = [];
    for (const namespace of lineage) {
      const [changed] = this.#columnsOf(start, namespace, equalities);
      const [lookedUp] = at === start ? [] : this.#columnsOf(at, namespace, equalities);
      if (changed !== undefined)
        ids.push({ namespace, column: this.#name({ occurrence: start, column: changed }), of: 'changed' });
      else if (lookedUp !== undefined)
        ids.push({ namespace, column: this.#name({ occurrence: at, column: lookedUp }), of: 'looked up' });
      else break;
    }
    return ids;
  }

  /** The tables joined to this occurrence. A condition counts where it restricts the rows of the occurrence. */
  #hops(occurrence: Occurrence, equalities: readonly Equality[]): Hop[] {
    const pairs = new Map<Occurrence, Hop['on'][number][]>();
    for (const { left, right, region } of equalities) {
      if (!holds(region, occurrence.region)) continue;
      for (const [from, to] of [
        [left, right],
        [right, left],
      ] as const) {
        if (from.occurrence !== occurrence || to.occurrence === occurrence) continue;
        const [ours, theirs] = [this.#column(from), this.#column(to)];
        if (ours === undefined || theirs === undefined || family(ours.kind) !== family(theirs.kind)) continue;
        const on = pairs.get(to.occurrence) ?? [];
        if (!on.some(({ column }) => column === theirs.name)) on.push({ column: theirs.name, changed: ours.name });
        pairs.set(to.occurrence, on);
      }
    }
    return [...pairs].map(([joined, on]) => ({
      relation: this.#relations.get(joined.relation)!,
      occurrence: joined,
      on,
    }));
  }

  /** The numbers of the columns that hold the id. */
  #columnsOf(occurrence: Occurrence, namespace: string, equalities: readonly Equality[]): number[] {
    const columns = this.#relations.get(occurrence.relation)?.columns.keys() ?? [];
    return [...columns].filter(
      (column) =>
        this.#column({ occurrence, column }) !== undefined &&
        this.#holds({ occurrence, column }, namespace, equalities, new Set()),
    );
  }

  /** Whether every row that concerns the entry holds its id in this column. */
  #holds(at: OccurrenceColumn, namespace: string, equalities: readonly Equality[], met: Set<string>): boolean {
    const key = `${this.occurrences.indexOf(at.occurrence)}.${at.column}`;
    if (met.has(key)) return false;
    met.add(key);
    const restricted = this.#restrictions.some(
      ({ column, region, names }) =>
        same(column, at) && names.includes(namespace) && holds(region, at.occurrence.region),
    );
    if (restricted) return true;
    return equalities.some(({ left, right, region }) => {
      if (!holds(region, at.occurrence.region)) return false;
      const other = same(left, at) ? right : same(right, at) ? left : undefined;
      return other !== undefined && this.#holds(other, namespace, equalities, met);
    });
  }

  /** A column that can be an id. */
  #column({ occurrence, column }: OccurrenceColumn) {
    const relation = this.#relations.get(occurrence.relation);
    const described = relation?.table?.columns.get(relation.columns.get(column) ?? '');
    return described === undefined || described.kind === 'other' ? undefined : described;
  }

  #name({ occurrence, column }: OccurrenceColumn): string {
    return this.#relations.get(occurrence.relation)?.columns.get(column) ?? '';
  }
}

function isBetter(a: Route, b: Route): boolean {
  const [many, manyOfBest] = [a, b].map(({ hops }) => hops.filter((hop) => !isOneRow(hop)).length) as [number, number];
  return many === manyOfBest ? a.ids.length > b.ids.length : many < manyOfBest;
}

function isOneRow({ relation, on }: Hop): boolean {
  const key = relation.table?.primaryKey ?? [];
  return key.length > 0 && key.every((name) => on.some(({ column }) => column === name));
}

function family(kind: string): string {
  return kind === 'enum' ? 'text' : kind;
}

function same(a: OccurrenceColumn, b: OccurrenceColumn): boolean {
  return a.occurrence === b.occurrence && a.column === b.column;
}

function holds(region: Region, inner: Region): boolean {
  return region === EVERYWHERE || holdsIn(region, inner);
}

/** Of entries of the global scope. */
const GLOBAL: Route = { ids: [], hops: [], complete: true, byForeignKey: false };

const EVERYWHERE: Region = { outer: undefined };

/**
 * The ids that a parameter is: those whose samples have its value. Where several have it, the one that the column's name
 * names; else the parameter tells nothing.
 */
function namesOf(binding: unknown, column: string, samples: EntryQueries['samples']): string[] {
  const values = (Array.isArray(binding) ? binding : [binding]).map(String);
  if (values.length === 0) return [];
  const names = [...samples].filter(([, texts]) => values.every((value) => texts.has(value))).map(([name]) => name);
  if (names.length <= 1) return names;
  const named = names.filter((name) => column.toLowerCase().includes(name.toLowerCase()));
  return named.length === 1 ? named : [];
}

/**
 * Foreign keys between tables of different statements, of which one asks for the rows that another found: the two sides, or
 * two columns that refer to one. Within a statement the conditions themselves say which rows belong together.
 */
function guesses(statements: readonly (readonly Occurrence[])[], keys: readonly ForeignKey[]): Equality[] {
  const equalities: Equality[] = [];
  const pair = (table: string, columns: readonly number[], otherTable: string, otherColumns: readonly number[]) => {
    for (const [i, here] of statements.entries()) {
      for (const left of here.filter(({ relation }) => relation === table)) {
        for (const right of statements.toSpliced(i, 1).flat()) {
          if (right.relation !== otherTable) continue;
          for (const [at, column] of columns.entries()) {
            const other = { occurrence: right, column: otherColumns[at]! };
            equalities.push({ left: { occurrence: left, column }, right: other, region: EVERYWHERE });
          }
        }
      }
    }
  };
  for (const [i, key] of keys.entries()) {
    pair(key.table, key.columns, key.references, key.referenced);
    for (const other of keys.slice(i + 1)) {
      const alike = other.references === key.references && other.referenced.join() === key.referenced.join();
      if (alike) pair(key.table, key.columns, other.table, other.columns);
    }
  }
  return equalities;
}
