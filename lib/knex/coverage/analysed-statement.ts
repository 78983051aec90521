import type { Knex } from 'knex';
import { execute } from '../postgres/sql-text.js';
import { query } from '../postgres/query.js';
import { isList, isNode, parseTree, type TreeNode } from '../postgres/node-tree.js';
import { type StatementText, statementText } from './statement-text.js';

/** PostgreSQL's reading of a statement, with the views that it reads. */
export interface AnalysedStatement {
  /** The analysed query; undefined if this release writes it in an unknown form. */
  readonly query: TreeNode | undefined;
  /** The analysed queries of the views that it reads, at any depth, by oid. */
  readonly views: ReadonlyMap<string, TreeNode>;
  /** The columns that `pg_depend` has for the statement and its views: of tables, views, sequences. 0 for the relation itself. */
  readonly depends: readonly { readonly relation: string; readonly column: number }[];
}

/** The reason why PostgreSQL's reading can't be had. */
export interface UnreadableStatement {
  readonly unreadable: string;
}

/** The names of the temporary view, and of the row that stands for the parameters. */
const VIEW = 'gencache_coverage';
export const PARAMETERS = 'gencache_parameters';

/**
 * Asks PostgreSQL what a statement depends on: makes a temporary view of it and reads the view's dependencies. The caller's
 * transaction is rolled back to where it was. The statement stands in a subquery, where equal names of columns and all types are
 * allowed; its parameters are columns of a row beside it, since a view has none, and since the query then shows which column is
 * compared with which parameter.
 */
export async function analyse(trx: Knex.Transaction, sql: string): Promise<AnalysedStatement | UnreadableStatement> {
  const text = statementText(sql);
  if (text.several) return { unreadable: 'it is several statements in one text. Send them one by one.' };
  if (!QUERIES.has(text.verb)) {
    return { unreadable: `it is no SELECT${text.verb === '' ? '' : `, but ${text.verb.toUpperCase()}`}.` };
  }
  try {
    const types = await tried(trx, () => parameterTypes(trx, text));
    try {
      return await tried(trx, () => readView(trx, viewOfRow(text, types)));
    } catch {
      // An aggregate of parameters alone would belong to the outer query.
      return await tried(trx, () => readView(trx, viewOfNulls(text, types)));
    }
  } catch (error) {
    return {
      unreadable: `PostgreSQL can't make a view of it: ${(error as Error).message.replace(/^[\s\S]* - /, '')}.`,
    };
  }
}

const QUERIES: ReadonlySet<string> = new Set(['select', 'with', 'values', 'table']);

/** Runs `work` in a savepoint that is always rolled back. */
async function tried<T>(trx: Knex.Transaction, work: () => Promise<T>): Promise<T> {
  await query(trx, 'savepoint gencache_coverage');
  try {
    return await work();
  } finally {
    await query(trx, 'rollback to savepoint gencache_coverage; release savepoint gencache_coverage');
  }
}

/** The types of the parameters, as PostgreSQL infers them for the loader's driver; `[n - 1]` for `$n`. */
async function parameterTypes(trx: Knex.Transaction, text: StatementText): Promise<readonly string[]> {
  if (text.parameters.length === 0) return [];
  await execute(trx, `prepare ${VIEW} as ${text.with((number) => `$${number}`)}\n`);
  try {
    const rows = await query<{ types: string[] }>(
      trx,
      `select to_json(parameter_types::text[]) as types from pg_prepared_statements where name = ?`,
      [VIEW],
    );
    return rows[0]!.types;
  } finally {
    // A prepared statement outlives a rollback.
    await query(trx, `deallocate ${VIEW}`);
  }
}

function viewOfRow(text: StatementText, types: readonly string[]): string {
  const row = types.map((type, i) => `null::${type} as p${i + 1}`);
  return (
    `create temporary view ${VIEW} as select 1 as one from (select ${row.join(', ')}) as ${PARAMETERS} cross join lateral (\n` +
    `${text.with((number) => `${PARAMETERS}.p${number}`)}\n) as gencache_statement`
  );
}

function viewOfNulls(text: StatementText, types: readonly string[]): string {
  return (
    `create temporary view ${VIEW} as select 1 as one from (\n` +
    `${text.with((number) => `(null::${types[number - 1]})`)}\n) as gencache_statement`
  );
}

async function readView(trx: Knex.Transaction, statement: string): Promise<AnalysedStatement> {
  await execute(trx, statement);
  const rows = await query<{ view: string; own: boolean; tree: string; depends: [string, number][] | null }>(trx, READ);
  const views = new Map<string, TreeNode>();
  let own: TreeNode | undefined;
  let readable = true;
  for (const row of rows) {
    const tree = queryOf(row.tree);
    if (tree === undefined) readable = false;
    else if (row.own) own = tree;
    else views.set(row.view, tree);
  }
  return {
    query: readable ? own : undefined,
    views,
    depends: rows.flatMap(({ depends }) => (depends ?? []).map(([relation, column]) => ({ relation, column }))),
  };
}

/** The SELECT of a view's rule. */
function queryOf(text: string): TreeNode | undefined {
  try {
    const tree = parseTree(text);
    const first = isList(tree) ? tree[0] : tree;
    return isNode(first) && first.type === 'QUERY' ? first : undefined;
  } catch {
    return undefined;
  }
}

/** The rules of the temporary view and of all views below it, with what each depends on. */
const READ = `
  with recursive read as (
    select 'pg_temp.${VIEW}'::regclass::oid as view
    union
    select class.oid from read
    join pg_rewrite rule on rule.ev_class = read.view and rule.ev_type = '1'
    join pg_depend on classid = 'pg_rewrite'::regclass and objid = rule.oid and refclassid = 'pg_class'::regclass
    join pg_class class on class.oid = refobjid and class.relkind = 'v'
  )
  select view::text, view = 'pg_temp.${VIEW}'::regclass as own, ev_action::text as tree,
    (select json_agg(distinct jsonb_build_array(refobjid::text, refobjsubid)) from pg_depend
     where classid = 'pg_rewrite'::regclass and objid = rule.oid and refclassid = 'pg_class'::regclass
       and refobjid <> view) as depends
  from read join pg_rewrite rule on rule.ev_class = read.view and rule.ev_type = '1'`;
