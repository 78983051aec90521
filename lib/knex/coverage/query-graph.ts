import { PARAMETERS, type AnalysedStatement } from './analysed-statement.js';
import { child, isList, isNode, nodes, number, type Tree, type TreeNode, walk, word } from '../postgres/node-tree.js';

/** One occurrence of a table in a query: a table that is joined with itself has two. */
export interface Occurrence {
  readonly id: number;
  /** The oid of the table. */
  readonly relation: string;
  readonly region: Region;
}

/**
 * A part of a query whose conditions hold for its own rows alone: the optional side of an outer join, or a subquery. A condition restricts the rows of its region and of those within it.
 */
export interface Region {
  readonly outer: Region | undefined;
}

export interface OccurrenceColumn {
  readonly occurrence: Occurrence;
  readonly column: number;
  /**
   * Whether the compared value is that of one of several columns, as in a column of UNION: the comparison holds for rows of
   * this occurrence, and does not require one.
   */
  readonly alternative?: true;
}

/** Two columns that the query takes for equal; of null values it takes none for equal. */
export interface Equality {
  readonly left: OccurrenceColumn;
  readonly right: OccurrenceColumn;
  readonly region: Region;
}

/** A column that the query compares with parameters, with one of them or with each. */
export interface Restriction {
  readonly column: OccurrenceColumn;
  readonly parameters: readonly number[];
  readonly region: Region;
  /** Equal for columns that a row of the result compares with one and the same value. */
  readonly row: string | undefined;
}

/** What a query's analysed form shows beyond its dependencies. */
export interface QueryGraph {
  readonly occurrences: readonly Occurrence[];
  readonly equalities: readonly Equality[];
  readonly restrictions: readonly Restriction[];
  /** Relations whose whole row the query uses, so that it depends on all columns. */
  readonly wholeRows: ReadonlySet<string>;
  readonly relations: ReadonlySet<string>;
  readonly functions: ReadonlySet<string>;
  /** CURRENT_DATE and its like. */
  readonly readsClock: boolean;
}

/** A query, or a subquery, and the queries around it. */
interface Level {
  readonly query: TreeNode;
  readonly rtable: readonly TreeNode[];
  readonly outer: Level | undefined;
  /** By position in `rtable`. */
  readonly regions: Map<number, Region>;
  readonly occurrences: Map<number, Occurrence>;
  readonly inner: Map<number | string, Level>;
}

/** `row`: the one value that it stands for in a row of the result; undefined for any of several. */
type Source = OccurrenceColumn | { readonly parameter: number; readonly row: string | undefined };

const RELATION = 0;
const SUBQUERY = 1;
const JOIN = 2;
const FUNCTION = 3;
const VALUES = 5;
const CTE = 6;
const GROUP = 9;

const INNER = '0';
const LEFT = '1';
const RIGHT = '3';

/** Fields of nodes that name a function. */
const FUNCTIONS = ['funcid', 'opfuncid', 'aggfnoid', 'winfnoid', 'negfuncid', 'hashfuncid'];

/** Follows the columns of a query through its subqueries, CTEs and views. `isEquality`: whether an operator, by oid, is one. */
export function graphOf(
  { query, views }: AnalysedStatement & { readonly query: TreeNode },
  isEquality: (operator: string) => boolean,
): QueryGraph {
  return new Graph(views, isEquality).read(query);
}

/** The oids of the operators of a query and its views. */
export function operatorsOf({ query, views }: AnalysedStatement): string[] {
  const found = new Set<string>();
  walk([query ?? null, ...views.values()], ({ fields }) => {
    if (typeof fields['opno'] === 'string') found.add(fields['opno']);
    return true;
  });
  return [...found];
}

class Graph implements QueryGraph {
  readonly occurrences: Occurrence[] = [];
  readonly equalities: Equality[] = [];
  readonly restrictions: Restriction[] = [];
  readonly wholeRows = new Set<string>();
  readonly relations = new Set<string>();
  readonly functions = new Set<string>();
  readsClock = false;
  readonly #views: ReadonlyMap<string, TreeNode>;
  readonly #tables = new Map<TreeNode, number>();
  readonly #required = new Set<TreeNode>();
  readonly #isEquality: (operator: string) => boolean;

  constructor(views: ReadonlyMap<string, TreeNode>, isEquality: (operator: string) => boolean) {
    this.#views = views;
    this.#isEquality = isEquality;
  }

  read(query: TreeNode): this {
    this.#enter(query, undefined, { outer: undefined });
    this.#pairRestrictions();
    return this;
  }

  /** Columns that a row compares with one value are equal. */
  #pairRestrictions(): void {
    for (const [i, one] of this.restrictions.entries()) {
      for (const other of this.restrictions.slice(i + 1)) {
        if (one.row === undefined || one.row !== other.row || one.column.occurrence === other.column.occurrence)
          continue;
        const region = holdsIn(one.region, other.region) ? other.region : one.region;
        if (holdsIn(other.region, region)) this.equalities.push({ left: one.column, right: other.column, region });
      }
    }
  }

  #enter(query: TreeNode, outer: Level | undefined, region: Region): Level {
    const rtable = nodes(query.fields['rtable']);
    const level: Level = { query, rtable, outer, regions: new Map(), occurrences: new Map(), inner: new Map() };
    const conditions: { readonly condition: Tree; readonly region: Region }[] = [];
    // CTEs first: the tables of the query refer to them.
    for (const cte of nodes(query.fields['cteList'])) {
      const inside = child(cte, 'ctequery');
      const name = word(cte, 'ctename');
      if (inside === undefined) continue;
      const inner = this.#enter(inside, level, { outer: region });
      // A row of a recursive query concerns the rows that follow from it, whatever the outer query selects of them.
      if (cte.fields['cterecursive'] !== 'true') level.inner.set(name, inner);
    }
    this.#divide(child(query, 'jointree'), region, level, conditions);
    // Members of UNION and its like stand in no join tree.
    for (const i of rtable.keys()) {
      const unjoined = query.fields['setOperations'] !== null && number(rtable[i]!, 'rtekind') === SUBQUERY;
      if (unjoined && !level.regions.has(i)) level.regions.set(i, { outer: region });
    }
    for (const [i, where] of level.regions) this.#table(level, i, where);
    // From release 18 on, expressions of GROUP BY stand in an entry of their own.
    for (const rte of rtable) this.#expressions(rte.fields['groupexprs'], level, region);
    for (const { condition, region: where } of conditions) this.#condition(condition, level, where);
    for (const field of [
      'targetList',
      'havingQual',
      'sortClause',
      'groupClause',
      'limitCount',
      'limitOffset',
      'windowClause',
    ]) {
      this.#expressions(query.fields[field], level, region);
    }
    return level;
  }

  /** Gives each table of a join tree its region, and collects the conditions. */
  #divide(
    tree: TreeNode | undefined,
    region: Region,
    level: Level,
    conditions: { condition: Tree; region: Region }[],
  ): void {
    if (tree === undefined) return;
    if (tree.type === 'RANGETBLREF') level.regions.set(number(tree, 'rtindex') - 1, region);
    else if (tree.type === 'FROMEXPR') {
      for (const each of nodes(tree.fields['fromlist'])) this.#divide(each, region, level, conditions);
      conditions.push({ condition: tree.fields['quals'] ?? null, region });
    } else if (tree.type === 'JOINEXPR') {
      const kind = word(tree, 'jointype');
      const optional = (): Region => ({ outer: region });
      const left = kind === INNER || kind === LEFT ? region : optional();
      const right = kind === INNER || kind === RIGHT ? region : optional();
      this.#divide(child(tree, 'larg'), left, level, conditions);
      this.#divide(child(tree, 'rarg'), right, level, conditions);
      const own = kind === INNER ? region : kind === LEFT ? right : kind === RIGHT ? left : optional();
      conditions.push({ condition: tree.fields['quals'] ?? null, region: own });
    }
  }

  #table(level: Level, i: number, region: Region): void {
    const rte = level.rtable[i]!;
    const kind = number(rte, 'rtekind');
    if (kind === RELATION) {
      const relation = word(rte, 'relid');
      const view = this.#views.get(relation);
      this.relations.add(relation);
      if (view !== undefined) level.inner.set(i, this.#enter(view, undefined, { outer: region }));
      else {
        const occurrence = { id: this.occurrences.length, relation, region };
        this.occurrences.push(occurrence);
        level.occurrences.set(i, occurrence);
      }
    } else if (kind === SUBQUERY && nameOf(rte) !== PARAMETERS) {
      const inside = child(rte, 'subquery');
      if (inside !== undefined) level.inner.set(i, this.#enter(inside, level, { outer: region }));
    } else
      this.#expressions(
        [
          rte.fields['functions'] ?? null,
          rte.fields['values_lists'] ?? null,
          rte.fields['tablefunc'] ?? null,
          rte.fields['tablesample'] ?? null,
        ],
        level,
        region,
      );
  }

  /** Takes the equalities of a condition, all of which hold: those within OR hold for no row alone. */
  #condition(tree: Tree | undefined, level: Level, region: Region): void {
    this.#addRequired(tree);
    for (const [left, right] of this.#pairs(tree, level)) this.#equal(left, right, region);
    this.#expressions(tree, level, region);
  }

  /** `exists (...)` and `a in (...)`, outside of OR and NOT: they restrict the outer rows as an inner join does. */
  #addRequired(tree: Tree | undefined): void {
    if (isList(tree)) for (const each of tree) this.#addRequired(each);
    else if (isNode(tree) && tree.type === 'BOOLEXPR' && tree.fields['boolop'] === 'and')
      this.#addRequired(tree.fields['args']);
    else if (isNode(tree) && tree.type === 'SUBLINK' && ['0', '2'].includes(word(tree, 'subLinkType'))) {
      const inside = child(tree, 'subselect');
      // An aggregate over no rows is a row.
      const lasts = inside === undefined || ROWS_OF_NONE.some((field) => !NOTHING.has(inside.fields[field]));
      if (!lasts) this.#required.add(tree);
    }
  }

  #equal(left: Source, right: Source, region: Region): void {
    if ('occurrence' in left && 'occurrence' in right) this.equalities.push({ left, right, region });
    else if ('occurrence' in left && 'parameter' in right) {
      this.restrictions.push({ column: left, parameters: [right.parameter], region, row: right.row });
    } else if ('parameter' in left && 'occurrence' in right) this.#equal(right, left, region);
  }

  /** The pairs that a condition takes for equal. */
  #pairs(tree: Tree | undefined, level: Level): [Source, Source][] {
    if (isList(tree)) return tree.flatMap((each) => this.#pairs(each, level));
    if (!isNode(tree)) return [];
    const args = isList(tree.fields['args']) ? tree.fields['args'] : [];
    if (tree.type === 'BOOLEXPR') {
      const [first] = args;
      switch (word(tree, 'boolop')) {
        case 'and':
          return args.flatMap((each) => this.#pairs(each, level));
        case 'or':
          return this.#either(args.map((each) => this.#pairs(each, level)));
        default:
          // `is not distinct from`
          // Between two columns it holds for null values, too, by which no lookup finds a row.
          return isNode(first) && first.type === 'DISTINCTEXPR'
            ? this.#operands(first, level).filter((pair) => pair.some((one) => 'parameter' in one))
            : [];
      }
    }
    if (tree.type === 'OPEXPR') return this.#operands(tree, level);
    if (tree.type === 'SCALARARRAYOPEXPR' && tree.fields['useOr'] === 'true') return this.#operands(tree, level);
    return [];
  }

  #operands(tree: TreeNode, level: Level): [Source, Source][] {
    const [left, right] = isList(tree.fields['args']) ? tree.fields['args'] : [];
    if (right === undefined || !this.#isEquality(word(tree, 'opno'))) return [];
    // `= any ($1)`: two columns of it may hold different elements.
    const others = this.#sources(right, level).map((source) =>
      'parameter' in source && tree.type === 'SCALARARRAYOPEXPR' ? { ...source, row: undefined } : source,
    );
    return this.#sources(left, level).flatMap((one) => others.map((other): [Source, Source] => [one, other]));
  }

  /**
   * `(a = $1 and b = $2) or (a = $3 and b = $4)`: each branch compares a with a parameter, so a is restricted to their
   * values. A branch that does not leaves a unrestricted.
   */
  #either(branches: readonly [Source, Source][][]): [Source, Source][] {
    const restricted = branches.map(
      (pairs) => new Set(pairs.flatMap((pair) => pair.filter((one) => 'occurrence' in one).map(keyOf))),
    );
    const anyOf = (source: Source): Source => ('parameter' in source ? { ...source, row: undefined } : source);
    const pairs = branches.flat().map(([left, right]): [Source, Source] => [anyOf(left), anyOf(right)]);
    return pairs.filter(([left, right]) => {
      const columns = [left, right].filter((one) => 'occurrence' in one);
      return columns.length === 1 && restricted.every((keys) => keys.has(keyOf(columns[0]!)));
    });
  }

  /** Looks through an expression for subqueries, functions and whole rows. */
  #expressions(tree: Tree | undefined, level: Level, region: Region): void {
    walk(tree, (node) => {
      const { type, fields } = node;
      for (const field of FUNCTIONS) {
        const value = fields[field];
        if (typeof value === 'string' && value !== '0') this.functions.add(value);
      }
      if (type === 'SQLVALUEFUNCTION' && number(node, 'op') < CURRENT_ROLE) this.readsClock = true;
      if (type === 'VAR' && number(node, 'varattno') <= 0) this.#wholeRow(node, level);
      if (type !== 'SUBLINK') return true;
      const inside = child(node, 'subselect');
      const within: Region = this.#required.has(node) ? region : { outer: region };
      if (inside !== undefined) {
        const inner = this.#enter(inside, level, within);
        this.#member(node, level, inner, within);
      }
      this.#expressions(fields['testexpr'], level, region);
      return false;
    });
  }

  /** `a in (select b ...)`, and `not in`: a row with b concerns the rows with the same a. */
  #member(link: TreeNode, level: Level, inner: Level, region: Region): void {
    walk(link.fields['testexpr'], (node) => {
      if (node.type !== 'OPEXPR') return true;
      const [left, right] = isList(node.fields['args']) ? node.fields['args'] : [];
      if (isNode(right) && this.#isEquality(word(node, 'opno'))) {
        const selected = right.type === 'PARAM' ? right : innermost(right);
        for (const one of this.#sources(left, level)) {
          for (const other of this.#column(inner, number(selected, 'paramid'))) this.#equal(one, other, region);
        }
      }
      return false;
    });
  }

  #wholeRow(variable: TreeNode, level: Level): void {
    const at = levelOf(level, number(variable, 'varlevelsup'));
    const i = number(variable, 'varno') - 1;
    const rte = at?.rtable[i];
    if (rte !== undefined && number(rte, 'rtekind') === RELATION) this.wholeRows.add(word(rte, 'relid'));
  }

  /** The columns and parameters whose value an expression is, without a change. */
  #sources(tree: Tree | undefined, level: Level): Source[] {
    if (isList(tree)) return tree.flatMap((each) => this.#sources(each, level));
    if (!isNode(tree)) return [];
    switch (tree.type) {
      case 'VAR': {
        const at = levelOf(level, number(tree, 'varlevelsup'));
        return at === undefined ? [] : this.#variable(at, number(tree, 'varno') - 1, number(tree, 'varattno'));
      }
      case 'RELABELTYPE':
      case 'COERCETODOMAIN':
      case 'ARRAYCOERCEEXPR':
      case 'COERCEVIAIO':
        return this.#sources(tree.fields['arg'], level);
      case 'ARRAYEXPR':
      case 'ARRAY':
        return this.#sources(tree.fields['elements'], level).map(asAlternative);
      case 'COALESCE':
      case 'COALESCEEXPR':
        // The merged column of a FULL JOIN with USING.
        return this.#sources(tree.fields['args'], level).map(asAlternative);
      case 'FUNCEXPR':
        return CASTS.has(word(tree, 'funcformat')) ? this.#sources(tree.fields['args'], level) : [];
      default:
        return [];
    }
  }

  #variable(level: Level, i: number, column: number): Source[] {
    const rte = level.rtable[i];
    if (rte === undefined || column <= 0) return [];
    const occurrence = level.occurrences.get(i);
    if (occurrence !== undefined) return [{ occurrence, column }];
    const inner = level.inner.get(i);
    if (inner !== undefined) return this.#column(inner, column);
    switch (number(rte, 'rtekind')) {
      case SUBQUERY:
        return nameOf(rte) === PARAMETERS ? [{ parameter: column, row: `$${column}` }] : [];
      case JOIN:
        return this.#sources(listItem(rte.fields['joinaliasvars'], column - 1), level);
      case GROUP:
        return this.#sources(listItem(rte.fields['groupexprs'], column - 1), level);
      case VALUES:
        return (isList(rte.fields['values_lists']) ? rte.fields['values_lists'] : []).flatMap((row) =>
          this.#inRow(this.#sources(listItem(row, column - 1), level), rte, column),
        );
      case FUNCTION:
        return this.#unnested(rte, level, column);
      case CTE: {
        const at = levelOf(level, number(rte, 'ctelevelsup'));
        const cte = at?.inner.get(word(rte, 'ctename'));
        return cte === undefined || rte.fields['self_reference'] === 'true' ? [] : this.#column(cte, column);
      }
      default:
        return [];
    }
  }

  /** Values of a row of `unnest` or VALUES. Columns of such arrays are no values of the row. */
  #inRow(sources: readonly Source[], rte: TreeNode, column: number): Source[] {
    const row = `${this.#numberOf(rte)}.${column}`;
    return sources.flatMap((source) => ('parameter' in source ? [{ ...source, row }] : []));
  }

  #numberOf(rte: TreeNode): number {
    const known = this.#tables.get(rte) ?? this.#tables.size;
    this.#tables.set(rte, known);
    return known;
  }

  /** A column of `unnest($1, $2)`, which PostgreSQL keeps as one function for each array. */
  #unnested(rte: TreeNode, level: Level, column: number): Source[] {
    let first = 1;
    for (const each of nodes(rte.fields['functions'])) {
      const count = number(each, 'funccolcount');
      const call = child(each, 'funcexpr');
      if (column >= first && column < first + count) {
        if (call?.fields['funcid'] !== UNNEST) return [];
        return this.#inRow(this.#sources(call.fields['args'], level), rte, column);
      }
      first += count;
    }
    return [];
  }

  /** The sources of a column of a query's result; of UNION, those of each member. */
  #column(level: Level, column: number): Source[] {
    const target = nodes(level.query.fields['targetList']).find((each) => number(each, 'resno') === column);
    if (CHOOSES.some((field) => !NOTHING.has(level.query.fields[field]))) return [];
    if (level.query.fields['setOperations'] === null || level.query.fields['setOperations'] === undefined) {
      return target === undefined ? [] : this.#sources(target.fields['expr'], level);
    }
    return [...level.inner].flatMap(([i, inner]) =>
      typeof i === 'number' ? this.#column(inner, column).map(asAlternative) : [],
    );
  }
}

/** `pg_proc.oid` of unnest(anyarray). */
const UNNEST = '2331';
/** Parts of a query by which one row decides on others, so that a condition outside does not restrict the rows inside. */
const CHOOSES = ['limitCount', 'limitOffset', 'hasWindowFuncs', 'hasDistinctOn'];
const ROWS_OF_NONE = ['hasAggs', 'groupingSets', 'havingQual', 'setOperations'];
const NOTHING: ReadonlySet<Tree | undefined> = new Set([undefined, null, 'false']);
/** Explicit and implicit casts: https://github.com/postgres/postgres/blob/REL_15_STABLE/src/include/nodes/primnodes.h */
const CASTS = new Set(['1', '2']);
/** The first SQLValueFunctionOp that is no date and no time. */
const CURRENT_ROLE = 9;

/** Whether a condition of `region` holds for the rows of `inner`. */
export function holdsIn(region: Region, inner: Region): boolean {
  for (let at: Region | undefined = inner; at !== undefined; at = at.outer) if (at === region) return true;
  return false;
}

function asAlternative(source: Source): Source {
  return 'occurrence' in source ? { ...source, alternative: true } : source;
}

function keyOf(source: Source): string {
  return 'occurrence' in source ? `${source.occurrence.id}.${source.column}` : `$${source.parameter}`;
}

function nameOf(rte: TreeNode): string | undefined {
  const name = child(rte, 'eref')?.fields['aliasname'];
  return typeof name === 'string' ? name : undefined;
}

function levelOf(level: Level, up: number): Level | undefined {
  let at: Level | undefined = level;
  for (let i = 0; i < up; i++) at = at?.outer;
  return at;
}

function listItem(tree: Tree | undefined, i: number): Tree | undefined {
  return isList(tree) ? tree[i] : undefined;
}

function innermost(node: TreeNode): TreeNode {
  const arg = child(node, 'arg');
  return arg === undefined ? node : innermost(arg);
}
