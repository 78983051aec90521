/**
 * The tables of which a looked-up view is made, and how they are joined, for the graph of lookups.
 *
 * A view that only joins tables (and views like that) by inner joins, filters their rows and names their columns is
 * transparent: each of its rows comes from one row of each table. Its columns and join conditions say which columns are equal.
 * Of any other view (an outer join, a subquery, a set operation, a window, a function of the application) only the tables are known.
 */
import type { Knex } from 'knex';
import { query } from '../postgres/query.js';
import { isNode, parseTree, type Tree, type TreeNode } from '../postgres/node-tree.js';

/** A table below a view. */
export interface BaseTable {
  readonly schema: string;
  readonly table: string;
  /** The columns that the view reads. */
  readonly columns: readonly string[];
}

/** A column of one of the tables, by their positions in the list. */
interface BaseColumn {
  readonly position: number;
  readonly column: string;
}

export interface View {
  readonly schema: string;
  readonly view: string;
  /** A table that is joined twice stands here twice. */
  readonly tables: readonly BaseTable[];
  /** Whether each row comes from one row of each table; otherwise `columns` and `equal` are empty. */
  readonly transparent: boolean;
  /** Which of the view's columns are columns of a table. */
  readonly columns: ReadonlyMap<string, BaseColumn>;
  /** Pairs of columns that are equal in each row. */
  readonly equal: readonly (readonly [BaseColumn, BaseColumn])[];
}

interface ViewName {
  readonly schema: string | null;
  readonly table: string;
}

/** The views among these relations. One query, and a few for each view. */
export async function viewsAmong(db: Knex, names: readonly ViewName[]): Promise<View[]> {
  const rows = await query<{ oid: string }>(
    db,
    `select class.oid::text as oid from pg_class class join pg_namespace space on space.oid = relnamespace
     join json_to_recordset(?::json) as named (schema text, "table" text)
       on named.schema = nspname and named.table = relname
     where relkind = 'v' group by 1 order by 1`,
    [JSON.stringify(names.map(({ schema, table }) => ({ schema, table })))],
  );
  const views: View[] = [];
  for (const { oid } of rows) views.push(await viewOf(db, oid));
  return views;
}

/** A relation in a view's query, with its columns by number. */
interface Read {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  readonly kind: string;
  readonly columns: Readonly<Record<string, string>>;
}

async function viewOf(db: Knex, oid: string): Promise<View> {
  const [own] = await relations(db, [oid]);
  const [rule] = await query<{ action: string }>(
    db,
    `select ev_action::text as action from pg_rewrite where ev_class = ?::oid and rulename = '_RETURN'`,
    [oid],
  );
  const used = await query<{ oid: string; column: string | null }>(
    db,
    `select refobjid::text as oid, attname as column
     from pg_rewrite join pg_depend on classid = 'pg_rewrite'::regclass and objid = pg_rewrite.oid
     left join pg_attribute on attrelid = refobjid and attnum = refobjsubid and refobjsubid > 0
     where ev_class = ?::oid and refclassid = 'pg_class'::regclass and refobjid <> ev_class
     group by 1, 2 order by 1, 2`,
    [oid],
  );
  const functions = await query(
    db,
    `select from pg_rewrite join pg_depend on classid = 'pg_rewrite'::regclass and objid = pg_rewrite.oid
     where ev_class = ?::oid and refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass) limit 1`,
    [oid],
  );
  const reads = await relations(db, [...new Set(used.map((each) => each.oid))]);
  const columnsRead = (read: Read) =>
    used.flatMap((each) => (each.oid === read.oid && each.column ? [each.column] : []));
  const join = functions.length > 0 ? undefined : joinOf(rule!.action, await equality(db));
  const tables: BaseTable[] = [];
  const columns = new Map<string, BaseColumn>();
  const equal: [BaseColumn, BaseColumn][] = [];
  /** Where a relation of the join, or a view in it, has its columns. */
  const resolved = new Map<number, (number: string) => BaseColumn | undefined>();
  let transparent = join !== undefined;
  const parts = join?.relations ?? reads.map((each, i) => ({ index: i, oid: each.oid }));
  for (const { index, oid: part } of parts) {
    const read = reads.find((each) => each.oid === part);
    if (read === undefined) continue;
    const from = tables.length;
    if (read.kind === 'v') {
      const inner = await viewOf(db, part);
      const shifted = ({ position, column }: BaseColumn) => ({ position: position + from, column });
      tables.push(...inner.tables);
      equal.push(...inner.equal.map(([one, other]) => [shifted(one), shifted(other)] as [BaseColumn, BaseColumn]));
      transparent &&= inner.transparent;
      resolved.set(index, (number) => {
        const column = inner.columns.get(read.columns[number] ?? '');
        return column === undefined ? undefined : shifted(column);
      });
    } else {
      tables.push({ schema: read.schema, table: read.name, columns: columnsRead(read) });
      resolved.set(index, (number) => {
        const column = read.columns[number];
        return column === undefined ? undefined : { position: from, column };
      });
    }
  }
  const at = ({ index, number }: JoinColumn) => resolved.get(index)?.(number);
  if (transparent) {
    for (const { number, of } of join!.columns) {
      const [name, column] = [own!.columns[number], at(of)];
      if (name !== undefined && column !== undefined) columns.set(name, column);
    }
    for (const [one, other] of join!.equal) {
      const pair = [at(one), at(other)] as const;
      if (pair[0] !== undefined && pair[1] !== undefined) equal.push([pair[0], pair[1]]);
    }
  }
  const { schema, name } = own!;
  return { schema, view: name, tables, transparent, columns, equal: transparent ? equal : [] };
}

async function relations(db: Knex, oids: readonly string[]): Promise<Read[]> {
  return query<Read>(
    db,
    `select class.oid::text as oid, nspname as schema, relname as name, relkind as kind,
       (select coalesce(json_object_agg(attnum, attname), '{}') from pg_attribute
        where attrelid = class.oid and attnum > 0 and not attisdropped) as columns
     from pg_class class join pg_namespace space on space.oid = relnamespace
     where class.oid = any(?::oid[]) order by class.oid`,
    [oids as string[]],
  );
}

/** Which comparisons hold for equal values alone. */
interface Equality {
  readonly operators: ReadonlySet<string>;
  /** Collations by which different texts are equal. */
  readonly loose: ReadonlySet<string>;
}

async function equality(db: Knex): Promise<Equality> {
  const rows = await query<{ oid: string; loose: boolean }>(
    db,
    `select oid::text as oid, false as loose from pg_operator
     where oprname = '=' and oprnamespace = 'pg_catalog'::regnamespace and oprcanhash
     union all select oid::text, true from pg_collation where not collisdeterministic`,
  );
  const oids = (loose: boolean) => new Set(rows.filter((row) => row.loose === loose).map(({ oid }) => oid));
  return { operators: oids(false), loose: oids(true) };
}

interface JoinColumn {
  readonly index: number;
  readonly number: string;
}

interface Join {
  readonly relations: readonly { readonly index: number; readonly oid: string }[];
  readonly columns: readonly { readonly number: string; readonly of: JoinColumn }[];
  readonly equal: readonly (readonly [JoinColumn, JoinColumn])[];
}

/** Fields of a query that must be absent: each makes a row of the view depend on more than one row of each table. */
const ABSENT = [
  'cteList',
  'groupClause',
  'groupingSets',
  'havingQual',
  'windowClause',
  'distinctClause',
  'limitOffset',
  'limitCount',
  'setOperations',
];
const FALSE = [
  'hasAggs',
  'hasWindowFuncs',
  'hasTargetSRFs',
  'hasSubLinks',
  'hasDistinctOn',
  'hasRecursive',
  'hasModifyingCTE',
];
/** Kinds of the range table, https://github.com/postgres/postgres/blob/REL_15_STABLE/src/include/nodes/parsenodes.h */
const [RELATION, JOIN] = ['0', '2'];
const INNER = '0';

/** The join of a query; undefined if it is anything more than that. */
function joinOf(action: string, { operators, loose }: Equality): Join | undefined {
  try {
    const tree = parseTree(action);
    const select = nodeOf(Array.isArray(tree) && tree.length === 1 ? (tree[0] as Tree) : tree);
    if (ABSENT.some((field) => !isEmpty(select.fields[field]))) return undefined;
    if (FALSE.some((field) => select.fields[field] !== 'false')) return undefined;
    const range = listOf(select.fields['rtable']).map(nodeOf);
    const found: { index: number; oid: string }[] = [];
    const equal: [JoinColumn, JoinColumn][] = [];
    const columnOf = (value: Tree | undefined): JoinColumn | undefined => {
      if (!isNode(value)) return undefined;
      // A varchar is compared as text: the same value under another type.
      if ('resulttype' in value.fields && 'relabelformat' in value.fields) return columnOf(value.fields['arg']);
      const [index, number] = [value.fields['varno'], value.fields['varattno']];
      if (typeof index !== 'string' || typeof number !== 'string' || value.fields['varlevelsup'] !== '0')
        return undefined;
      const entry = range[Number(index) - 1]!;
      if (entry.fields['rtekind'] === RELATION) return { index: Number(index), number };
      return columnOf(listOf(entry.fields['joinaliasvars'])[Number(number) - 1]);
    };
    const addConditions = (condition: Tree | undefined): void => {
      if (!isNode(condition)) return;
      const args = condition.fields['args'];
      if (condition.fields['boolop'] === 'and') for (const each of listOf(args)) addConditions(each);
      const operator = condition.fields['opno'];
      if (
        typeof operator !== 'string' ||
        !operators.has(operator) ||
        loose.has(condition.fields['inputcollid'] as string)
      )
        return;
      const [one, other] = listOf(args).map(columnOf);
      if (one !== undefined && other !== undefined) equal.push([one, other]);
    };
    const addFrom = (item: TreeNode): void => {
      const index = item.fields['rtindex'];
      if ('jointype' in item.fields) {
        if (item.fields['jointype'] !== INNER) throw new SyntaxError('an outer join');
        addFrom(nodeOf(item.fields['larg']));
        addFrom(nodeOf(item.fields['rarg']));
        addConditions(item.fields['quals']);
        return;
      }
      const entry = range[Number(index) - 1];
      if (entry?.fields['rtekind'] !== RELATION) throw new SyntaxError('no relation');
      found.push({ index: Number(index), oid: entry.fields['relid'] as string });
    };
    const from = nodeOf(select.fields['jointree']);
    for (const item of listOf(from.fields['fromlist'])) addFrom(nodeOf(item));
    addConditions(from.fields['quals']);
    const used = new Set(found.map(({ index }) => index));
    if (
      range.some(
        (entry, i) => entry.fields['rtekind'] !== RELATION && entry.fields['rtekind'] !== JOIN && !used.has(i + 1),
      )
    ) {
      return undefined;
    }
    const columns = listOf(select.fields['targetList'])
      .map(nodeOf)
      .flatMap((entry) => {
        const of = columnOf(entry.fields['expr']);
        return of === undefined || entry.fields['resjunk'] !== 'false'
          ? []
          : [{ number: entry.fields['resno'] as string, of }];
      });
    return { relations: found, columns, equal };
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function nodeOf(tree: Tree | undefined): TreeNode {
  if (isNode(tree)) return tree;
  throw new SyntaxError('a query has no node in its place');
}

function listOf(tree: Tree | undefined): readonly Tree[] {
  if (Array.isArray(tree)) return tree as readonly Tree[];
  if (tree === null) return [];
  throw new SyntaxError('a query has no list in its place');
}

function isEmpty(tree: Tree | undefined): boolean {
  return tree === null || (Array.isArray(tree) && tree.length === 0);
}
