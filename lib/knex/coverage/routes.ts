import type { IdColumn, TriggerBump } from '../triggers/trigger-definition.js';
import type { CapturedStatement } from './capture.js';
import type { Equality, Occurrence, OccurrenceColumn, QueryGraph } from './query-graph.js';
import type { ForeignKey, ReadRelation } from './relations.js';
import { type EqualPair, EVERYWHERE, type QueryFacts, RowContext } from './row-context.js';

/** A step of a lookup: the rows of a table whose columns equal those of the table before. */
export interface Hop {
  readonly relation: ReadRelation;
  readonly occurrence: Occurrence;
  readonly on: readonly EqualPair[];
}

/** How a changed row leads to the ids of a scope. */
export interface Route {
  /** Root first: a column of the changed row, of the last hop's table, or of one on the way. */
  readonly ids: readonly IdColumn[];
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

/** Limits of the search, which tries every order of joined tables. */
const HOPS_MAX = 8;
const WAYS_MAX = 1_000;

/** The equalities of an entry's queries, followed from a table to the ids of the entry. */
export class Routes {
  readonly occurrences: readonly Occurrence[];
  readonly #lineages: EntryQueries['lineages'];
  readonly #relations: EntryQueries['relations'];
  readonly #keys: readonly ForeignKey[];
  readonly #facts: QueryFacts;
  /** With foreign keys in the place of joins between statements. */
  readonly #guessed: QueryFacts;
  readonly #contexts = new Map<QueryFacts, Map<Occurrence, RowContext>>();

  constructor({ statements, samples, lineages, relations, foreignKeys }: EntryQueries) {
    this.#lineages = lineages;
    this.#relations = relations;
    this.#keys = foreignKeys;
    this.occurrences = statements.flatMap(({ graph }) => graph.occurrences);
    const numbers = new Map(this.occurrences.map((occurrence, i) => [occurrence, i]));
    this.#facts = {
      equalities: statements.flatMap(({ graph }) => graph.equalities),
      restrictions: statements.flatMap(({ statement, graph }) =>
        graph.restrictions.map(({ column, region, parameters }) => ({
          ...{ column, region },
          names: parameters.flatMap((number) => namesOf(statement.bindings[number - 1], this.#name(column), samples)),
        })),
      ),
      keyOf: ({ occurrence, column }) => `${numbers.get(occurrence)!}.${column}`,
      describe: (at) => this.#describe(at),
    };
    const guessed = guesses(
      statements.map(({ graph }) => graph.occurrences),
      foreignKeys,
    );
    this.#guessed = { ...this.#facts, equalities: [...this.#facts.equalities, ...guessed] };
  }

  /** The best route from a row of this occurrence; undefined without one. */
  from(occurrence: Occurrence): Route | undefined {
    for (const route of this.routesFrom(occurrence)) return route;
    return undefined;
  }

  /**
   * The routes from a row of this occurrence, the best first: by the row's own columns, if these name a scope below global;
   * else by the fewest lookups, the last one of a table that names such a scope; of those the one that reaches most tables by
   * primary keys; then the one that names the most. Routes by foreign keys come where the query shows none.
   */
  *routesFrom(occurrence: Occurrence): Generator<Route, void> {
    if (this.#lineages.every(({ length }) => length === 0)) {
      yield GLOBAL;
      return;
    }
    let found = false;
    for (const route of this.#search(occurrence, this.#facts)) {
      found = true;
      yield route;
    }
    if (!found) yield* this.#search(occurrence, this.#guessed);
  }

  /** The columns of this occurrence that hold the id wherever a row of `start` has a part in an answer. */
  columnsOf(occurrence: Occurrence, namespace: string, start = occurrence): string[] {
    return this.#columnsOf(this.#context(start, this.#facts), occurrence, namespace);
  }

  /**
   * The occurrences with rows that equal those of `from` in these pairs of columns, at least, wherever a row of `start` has
   * a part in an answer.
   */
  joined(start: Occurrence, from: Occurrence, table: { schema: string; name: string }, on: Hop['on']): Occurrence[] {
    const context = this.#context(start, this.#facts);
    return [...context.occurrences].filter((to) => {
      const { schema, name } = this.#relations.get(to.relation)!;
      return (
        to !== from &&
        schema === table.schema &&
        name === table.name &&
        on.every(({ column, changed }) => {
          const [theirs, ours] = [this.#numberOf(to, column), this.#numberOf(from, changed)];
          if (theirs === undefined || ours === undefined) return false;
          return context.areEqual({ occurrence: to, column: theirs }, { occurrence: from, column: ours });
        })
      );
    });
  }

  /**
   * The tables that refer to this one by a foreign key that the query joins by, for one occurrence: a row without them is in
   * no result, and they can't be there without it. So their own changes tell when such a row appears and disappears.
   */
  referring(occurrence: Occurrence): ReadRelation[] {
    const context = this.#context(occurrence, this.#facts);
    return this.#keys
      .filter(({ references }) => references === occurrence.relation)
      .flatMap((key) => {
        const isJoined = [...context.occurrences].some(
          (other) =>
            other !== occurrence &&
            other.relation === key.table &&
            key.columns.every((column, i) =>
              context.areEqual({ occurrence: other, column }, { occurrence, column: key.referenced[i]! }),
            ),
        );
        return isJoined ? [this.#relations.get(key.table)!] : [];
      });
  }

  /** The equality without which no route leads from a row of this occurrence to a scope, or why no route will do. A sentence or two. */
  missing(start: Occurrence): string {
    const context = this.#context(start, this.#guessed);
    const nameOf = ({ relation }: Occurrence) => this.#relations.get(relation)!.shown;
    const table = nameOf(start);
    const roots = [...new Set(this.#lineages.flatMap(([root]) => root ?? []))];
    if (this.from(start) !== undefined) {
      return `every way from ${table} to the id of ${roots.join(' or ')} leads through a circle of lookups, or ends at a table whose own columns do not name it.`;
    }
    const holders = roots.flatMap((namespace) =>
      this.occurrences.flatMap((occurrence) =>
        this.#columnsOf(this.#context(occurrence, this.#guessed), occurrence, namespace).map(
          (column) => `${nameOf(occurrence)}.${column}`,
        ),
      ),
    );
    const joined = [...new Set([...context.occurrences].map(nameOf))].filter((name) => name !== table);
    const from = joined.length === 0 ? table : `${table} (or ${joined.join(', ')}, which it is joined with)`;
    const to =
      holders.length === 0
        ? `the id of ${roots.join(' or ')}, which the query compares with no column for every row`
        : `${[...new Set(holders)].join(' or ')}, which has the id of ${roots.join(' or ')}`;
    const partial = this.#facts.equalities.filter(
      ({ left, right }) => context.occurrences.has(left.occurrence) !== context.occurrences.has(right.occurrence),
    );
    const shown = partial.map(({ left, right }) =>
      [left, right].map((at) => `${nameOf(at.occurrence)}.${this.#name(at)}`).join(' = '),
    );
    return (
      `no equality leads from a column of ${from} to ${to}.` +
      (shown.length === 0
        ? ''
        : ` The query has ${[...new Set(shown)].join(' and ')}, but not for every row of ${table}: it stands on one side of an outer join, in a subquery, or beside a UNION.`)
    );
  }

  *#search(start: Occurrence, facts: QueryFacts): Generator<Route, void> {
    const context = this.#context(start, facts);
    const isNamed = this.#lineages.some(([root]) =>
      [...context.occurrences].some((at) => root !== undefined && this.#columnsOf(context, at, root).length > 0),
    );
    if (!isNamed) return;
    let ways: { at: Occurrence; hops: readonly Hop[] }[] = [{ at: start, hops: [] }];
    for (let depth = 0; depth <= HOPS_MAX && ways.length > 0; depth++) {
      const routes = ways.flatMap(({ at, hops }) =>
        this.#lineages.flatMap((lineage) =>
          this.#idsOn(context, lineage, [start, ...hops.map(({ occurrence }) => occurrence)], at).map((ids) => ({
            ids,
            hops,
            complete: ids.length === lineage.length,
            byForeignKey: facts === this.#guessed,
          })),
        ),
      );
      yield* routes.toSorted(byQuality);
      ways = ways
        .flatMap(({ at, hops }) =>
          this.#hops(context, at)
            .filter(({ occurrence }) => occurrence !== start && hops.every((hop) => hop.occurrence !== occurrence))
            .map((hop) => ({ at: hop.occurrence, hops: [...hops, hop] })),
        )
        .slice(0, WAYS_MAX);
    }
  }

  /**
   * As many of the namespaces, root first, as the tables of a way name: from the changed row, where that has the id, then from
   * the last table, then from those before it; and the same with the last table first, where that differs. None where the
   * last table does not name the first one.
   */
  #idsOn(
    context: RowContext,
    lineage: readonly string[],
    tables: readonly Occurrence[],
    last: Occurrence,
  ): (readonly IdColumn[])[] {
    const end = tables.length - 1;
    const names = tables.map(({ relation }) => this.#relations.get(relation)!.name);
    // `lookedUp()` names a table on the way, so that must be there once.
    const onWay = [...names.keys()].filter(
      (i) => i > 0 && i < end && names.indexOf(names[i]!, 1) === names.lastIndexOf(names[i]!),
    );
    const idsFrom = (positions: readonly number[]): IdColumn[] => {
      const ids: IdColumn[] = [];
      for (const namespace of lineage) {
        const found = positions
          .map((position) => ({ position, column: this.#columnsOf(context, tables[position]!, namespace)[0] }))
          .find(({ column }) => column !== undefined);
        if (found === undefined) break;
        const { position, column } = found as { position: number; column: string };
        if (position === 0) ids.push({ namespace, column, of: 'changed' });
        else ids.push({ namespace, column, of: 'looked up', ...(position < end && { hop: position }) });
      }
      return ids;
    };
    if (lineage.length === 0 || this.#columnsOf(context, last, lineage[0]!).length === 0) return [];
    const rest = onWay.toReversed();
    const [first, second] = [idsFrom([...new Set([0, end, ...rest])]), idsFrom([...new Set([end, ...rest, 0])])];
    return JSON.stringify(first) === JSON.stringify(second) ? [first] : [first, second];
  }

  #hops(context: RowContext, from: Occurrence): Hop[] {
    return [...context.joined(from)].map(([occurrence, on]) => ({
      relation: this.#relations.get(occurrence.relation)!,
      ...{ occurrence, on },
    }));
  }

  #context(start: Occurrence, facts: QueryFacts): RowContext {
    const known = this.#contexts.get(facts) ?? new Map<Occurrence, RowContext>();
    this.#contexts.set(facts, known);
    const context = known.get(start) ?? new RowContext(start, facts);
    known.set(start, context);
    return context;
  }

  #columnsOf(context: RowContext, occurrence: Occurrence, namespace: string): string[] {
    if (!context.occurrences.has(occurrence)) return [];
    const columns = this.#relations.get(occurrence.relation)?.columns.keys() ?? [];
    return context
      .holders(occurrence, columns, namespace)
      .flatMap((column) => this.#describe({ occurrence, column }) ?? [])
      .filter(({ kind }) => kind !== 'other')
      .map(({ name }) => name);
  }

  #describe({ occurrence, column }: OccurrenceColumn) {
    const relation = this.#relations.get(occurrence.relation);
    return relation?.table?.columns.get(relation.columns.get(column) ?? '');
  }

  #numberOf({ relation }: Occurrence, name: string): number | undefined {
    return [...(this.#relations.get(relation)?.columns ?? [])].find(([, column]) => column === name)?.[0];
  }

  #name({ occurrence, column }: OccurrenceColumn): string {
    return this.#relations.get(occurrence.relation)?.columns.get(column) ?? '';
  }
}

/** What triggers record for a row, so that its scopes are found by this route. */
export function bumpBy({ hops, ids }: Route): TriggerBump {
  const [lookUp = null, ...further] = hops.map(({ relation: { schema, name }, on }) => ({ schema, table: name, on }));
  return { lookUp, ...(further.length > 0 && { further }), ids };
}

function byQuality(a: Route, b: Route): number {
  const [many, manyOfOther] = [a, b].map(({ hops }) => hops.filter((hop) => !isOneRow(hop)).length) as [number, number];
  return many - manyOfOther || b.ids.length - a.ids.length;
}

function isOneRow({ relation, on }: Hop): boolean {
  const key = relation.table?.primaryKey ?? [];
  return key.length > 0 && key.every((name) => on.some(({ column }) => column === name));
}

/** Of entries of the global scope. */
const GLOBAL: Route = { ids: [], hops: [], complete: true, byForeignKey: false };

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
