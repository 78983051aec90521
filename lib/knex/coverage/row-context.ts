import type { Column } from '../postgres/catalog.js';
import { EqualColumns } from '../triggers/equal-columns.js';
import { type Equality, holdsIn, type Occurrence, type OccurrenceColumn, type Region } from './query-graph.js';

/** A column that a query compares with ids of these names. */
export interface IdRestriction {
  readonly column: OccurrenceColumn;
  readonly region: Region;
  readonly names: readonly string[];
}

/** A column of one table and a column of another one that are equal. */
export interface EqualPair {
  readonly column: string;
  readonly changed: string;
}

/** The region of an equality that stands in no statement, but follows from a foreign key. */
export const EVERYWHERE: Region = { outer: undefined };

/** What a context needs to know of the queries. */
export interface QueryFacts {
  readonly equalities: readonly Equality[];
  readonly restrictions: readonly IdRestriction[];
  /** A text for a column that no other one has: occurrences of several statements are numbered each for themselves. */
  readonly keyOf: (at: OccurrenceColumn) => string;
  /** undefined for a relation without triggers. */
  readonly describe: (at: OccurrenceColumn) => Column | undefined;
}

/**
 * What holds wherever a row of one occurrence has a part in an answer: the occurrences that then have a row there, too, and
 * the columns of all these that are equal, closed transitively. A condition holds for the rows of its region. So one on the
 * optional side of an outer join holds for the context of a row of that side, and not for that of the other side.
 */
export class RowContext {
  /** The occurrence itself first. */
  readonly occurrences: ReadonlySet<Occurrence>;
  /** The equalities that hold, in the order of the query. */
  readonly #equalities: readonly Equality[];
  readonly #equal = new EqualColumns();
  readonly #members = new Map<string, OccurrenceColumn[]>();
  readonly #ids = new Map<string, Set<string>>();
  readonly #joined = new Map<Occurrence, ReadonlyMap<Occurrence, readonly EqualPair[]>>();
  readonly #facts: QueryFacts;

  constructor(start: Occurrence, facts: QueryFacts) {
    this.#facts = facts;
    const { equalities, restrictions } = facts;
    const occurrences = new Set([start]);
    const holding = new Set<Equality>();
    const holds = (region: Region) => [...occurrences].some((one) => holdsIn(region, one.region));
    const isThere = (one: OccurrenceColumn) => one.alternative !== true || occurrences.has(one.occurrence);
    const applies = ({ left, right, region }: Equality) =>
      region === EVERYWHERE
        ? occurrences.has(left.occurrence) || occurrences.has(right.occurrence)
        : holds(region) && isThere(left) && isThere(right);
    let before;
    do {
      before = holding.size;
      for (const equality of equalities) {
        if (holding.has(equality) || !applies(equality)) continue;
        holding.add(equality);
        occurrences.add(equality.left.occurrence).add(equality.right.occurrence);
        this.#equate(equality);
      }
    } while (holding.size > before);
    this.occurrences = occurrences;
    this.#equalities = equalities.filter((equality) => holding.has(equality));
    for (const { left, right } of this.#equalities) {
      for (const at of [left, right]) {
        const members = this.#members.get(this.#classOf(at)) ?? [];
        if (!members.some((one) => isSame(one, at))) members.push(at);
        this.#members.set(this.#classOf(at), members);
      }
    }
    for (const { column, region, names } of restrictions) {
      if (!occurrences.has(column.occurrence) || !holds(region)) continue;
      const known = this.#ids.get(this.#classOf(column)) ?? new Set();
      for (const name of names) known.add(name);
      this.#ids.set(this.#classOf(column), known);
    }
  }

  areEqual(one: OccurrenceColumn, other: OccurrenceColumn): boolean {
    return isSame(one, other) || this.#classOf(one) === this.#classOf(other);
  }

  /** Of the given columns of an occurrence those that hold the id of a namespace. */
  holders(occurrence: Occurrence, columns: Iterable<number>, namespace: string): number[] {
    return [...columns].filter(
      (column) => this.#ids.get(this.#classOf({ occurrence, column }))?.has(namespace) === true,
    );
  }

  /** The occurrences with columns that equal columns of this one, and can be looked up by them; direct comparisons first. */
  joined(from: Occurrence): ReadonlyMap<Occurrence, readonly EqualPair[]> {
    const known = this.#joined.get(from) ?? this.#pairs(from);
    this.#joined.set(from, known);
    return known;
  }

  #pairs(from: Occurrence): Map<Occurrence, EqualPair[]> {
    const pairs = new Map<Occurrence, EqualPair[]>();
    const pair = (ours: OccurrenceColumn, theirs: OccurrenceColumn) => {
      if (ours.occurrence !== from || theirs.occurrence === from) return;
      const [changed, column] = [this.#facts.describe(ours), this.#facts.describe(theirs)];
      if (changed === undefined || column === undefined || column.kind === 'other') return;
      if (typeOf(changed) !== typeOf(column)) return;
      const on = pairs.get(theirs.occurrence) ?? [];
      if (!on.some((known) => known.column === column.name)) on.push({ column: column.name, changed: changed.name });
      pairs.set(theirs.occurrence, on);
    };
    for (const { left, right } of this.#equalities) {
      pair(left, right);
      pair(right, left);
    }
    for (const members of this.#members.values()) {
      for (const ours of members.filter(({ occurrence }) => occurrence === from)) {
        for (const theirs of members) pair(ours, theirs);
      }
    }
    return pairs;
  }

  /** Values that are equal as one type may differ as another one, so a class has one type. */
  #equate({ left, right }: Equality): void {
    const [one, other] = [this.#facts.describe(left), this.#facts.describe(right)];
    if (one === undefined || other === undefined || typeOf(one) !== typeOf(other)) return;
    this.#equal.equate(this.#facts.keyOf(left), this.#facts.keyOf(right));
  }

  #classOf(at: OccurrenceColumn): string {
    return this.#equal.classOf(this.#facts.keyOf(at));
  }
}

function typeOf({ kind, type }: Column): string {
  if (kind === 'other') return type;
  return kind === 'enum' ? 'text' : kind;
}

function isSame(a: OccurrenceColumn, b: OccurrenceColumn): boolean {
  return a.occurrence === b.occurrence && a.column === b.column;
}
