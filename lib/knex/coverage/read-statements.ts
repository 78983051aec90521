import type { Knex } from 'knex';
import { ConfigurationError } from '../../errors/errors.js';
import { query } from '../postgres/query.js';
import { analyse, type AnalysedStatement } from './analysed-statement.js';
import type { TreeNode } from '../postgres/node-tree.js';
import { graphOf, operatorsOf, type QueryGraph } from './query-graph.js';
import {
  type CalledFunction,
  describeFunctions,
  describeRelations,
  equalities,
  type ForeignKey,
  foreignKeys,
  type ReadRelation,
} from './relations.js';

/** What PostgreSQL knows of one statement. */
export interface ReadStatement {
  readonly graph: QueryGraph;
  /** The numbers of the columns that it depends on, by relation; with views replaced by the tables below them. */
  readonly columns: ReadonlyMap<string, ReadonlySet<number>>;
  readonly functions: readonly CalledFunction[];
}

export interface ReadStatements {
  /** By text; the reason for a statement that can't be read. */
  readonly statements: ReadonlyMap<string, ReadStatement | { readonly unreadable: string }>;
  readonly relations: ReadonlyMap<string, ReadRelation>;
  readonly foreignKeys: readonly ForeignKey[];
}

/** Asks PostgreSQL about statements, in a transaction that is rolled back, on a connection that may make temporary views. */
export async function readStatements(db: Knex, texts: readonly string[]): Promise<ReadStatements> {
  const trx = await db.transaction();
  try {
    await assertViews(trx, db.isTransaction === true);
    const analysed = new Map<string, AnalysedStatement | { readonly unreadable: string }>();
    for (const text of new Set(texts)) analysed.set(text, await analyse(trx, text));
    const readable = [...analysed.values()].filter((each): each is AnalysedStatement => !('unreadable' in each));
    const isEquality = await equalities(trx, readable.flatMap(operatorsOf));
    const graphs = new Map<AnalysedStatement, QueryGraph>();
    for (const each of readable) {
      if (isWhole(each))
        graphs.set(
          each,
          graphOf(each, (operator) => isEquality.has(operator)),
        );
    }
    const oids = new Set(
      [...graphs].flatMap(([{ depends }, { relations }]) => [...depends.map(({ relation }) => relation), ...relations]),
    );
    const relations = await describeRelations(trx, [...oids]);
    const called = await describeFunctions(trx, [
      ...new Set([...graphs.values()].flatMap(({ functions }) => [...functions])),
    ]);
    const statements = new Map<string, ReadStatement | { readonly unreadable: string }>();
    for (const [text, each] of analysed) {
      if ('unreadable' in each) statements.set(text, each);
      else if (!graphs.has(each)) statements.set(text, { unreadable: UNKNOWN_FORM });
      else {
        const graph = graphs.get(each)!;
        const functions = called.filter(({ oid }) => graph.functions.has(oid));
        statements.set(text, { graph, functions, columns: columnsOf(each, graph, relations) });
      }
    }
    return { statements, relations, foreignKeys: await foreignKeys(trx, [...oids]) };
  } finally {
    await trx.rollback();
  }
}

/** Asserts that temporary views can be made here, also by a role whose default is to read only. Throws ConfigurationError. */
async function assertViews(trx: Knex.Transaction, isNested: boolean): Promise<void> {
  try {
    if (!isNested) await query(trx, 'set transaction read write');
    await query(trx, 'savepoint gencache_coverage');
    await query(trx, 'create temporary view gencache_coverage as select 1 as one');
    await query(trx, 'rollback to savepoint gencache_coverage; release savepoint gencache_coverage');
  } catch (error) {
    throw new ConfigurationError(
      `\`db\` must be able to make a temporary view, but PostgreSQL said: ${(error as Error).message.replace(/^[\s\S]* - /, '')}. ` +
        'Pass a Knex on the primary, whose role has TEMPORARY on the database, outside any read-only transaction.',
      { cause: error },
    );
  }
}

const UNKNOWN_FORM = 'this release of PostgreSQL writes its queries in a form that gencache does not know.';

function isWhole(each: AnalysedStatement): each is AnalysedStatement & { readonly query: TreeNode } {
  return each.query !== undefined;
}

function columnsOf(
  { depends }: AnalysedStatement,
  { relations: read, wholeRows }: QueryGraph,
  relations: ReadonlyMap<string, ReadRelation>,
): Map<string, ReadonlySet<number>> {
  const columns = new Map<string, Set<number>>();
  for (const relation of read) columns.set(relation, new Set());
  for (const { relation, column } of depends) {
    const known = columns.get(relation) ?? new Set();
    if (column > 0) known.add(column);
    columns.set(relation, known);
  }
  for (const relation of wholeRows) columns.set(relation, new Set(relations.get(relation)?.columns.keys()));
  for (const relation of [...columns.keys()])
    if (relations.get(relation)?.kind === 'v' && !relations.get(relation)!.system) columns.delete(relation);
  return columns;
}
