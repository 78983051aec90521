/**
 * Expressions of a changed row's columns: ids (`config->>'organization_id'`) and conditions of a bump (`enabled`).
 *
 * An installation has PostgreSQL check each one as it checks an index: its value must depend on the row alone, so it has no
 * subquery and calls only immutable functions, and built-in ones, since an application may replace its own. A check has
 * PostgreSQL parse each one again for the columns that the table has now. Neither reads a row, nor needs a right on the table.
 *
 * In the generated functions an expression is a column of the row like others, under its text (`expressionColumn`).
 */
import type { Knex } from 'knex';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import { type Column, type Table, typeOf } from '../postgres/catalog.js';
import { displayName, quoted } from '../postgres/identifiers.js';
import { query, verbatim } from '../postgres/query.js';
import { isSqlstate, isTransient, reasonOf } from '../postgres/sqlstate.js';
import type { InstalledOutbox } from '../outbox/installed-outbox.js';
import { execute } from '../postgres/sql-text.js';
import { expressionColumn, type TriggerDefinition } from './trigger-definition.js';

/** An expression of a definition. */
interface Expression {
  readonly sql: string;
  readonly is: 'id' | 'condition';
}

/** An expression that PostgreSQL does not understand, or that has the wrong type. */
export interface ExpressionFault {
  readonly message: string;
  readonly remedy: string;
}

/** The changed table with a column for each expression of the definition, and the faults. A few queries for each expression. */
export async function withExpressions(
  db: Knex,
  definition: TriggerDefinition,
  table: Table,
): Promise<{ readonly table: Table; readonly faults: readonly ExpressionFault[] }> {
  const columns = new Map(table.columns);
  const faults: ExpressionFault[] = [];
  for (const expression of expressionsOf(definition)) {
    const name = expressionColumn(expression.sql);
    if (columns.has(name)) continue;
    const described = await describeExpression(db, table, expression.sql);
    const column = typeof described === 'string' ? undefined : { ...described, name, expression: expression.sql };
    if (column === undefined) {
      faults.push({
        message: `${titleOf(expression)} can't be computed from a row of ${nameOf(table)}: ${described as string}.`,
        remedy: 'Name columns that the table has, and install again.',
      });
    } else if (expression.is === 'condition' && column.type !== 'boolean') {
      faults.push({
        message: `${titleOf(expression)} must be a boolean, but is ${column.type}.`,
        remedy: "Compare the value with another one, as in `status = 'open'`, and install again.",
      });
    } else if (expression.is === 'id' && column.kind === 'other') {
      faults.push({
        message:
          `${titleOf(expression)} must be a smallint, integer, bigint, text, varchar, uuid or an enumeration, ` +
          `but is ${column.type}.`,
        remedy: "Convert the value, as in `config->>'id'`, or leave the id out, which bumps the scope above.",
      });
    }
    // For a failing expression the function stays the installed one, so the column's properties do not matter.
    if (column !== undefined) columns.set(name, column);
  }
  return { table: { ...table, columns }, faults };
}

/**
 * Throws ConfigurationError for an expression whose value may depend on more than the row. Makes an empty table with the
 * columns of the watched one, and an index on it, in a savepoint that is rolled back.
 */
export async function refuseUnstableExpressions(
  trx: Knex.Transaction,
  outbox: InstalledOutbox,
  definition: TriggerDefinition,
  table: Table,
): Promise<void> {
  const expressions = expressionsOf(definition);
  if (expressions.length === 0) return;
  const probe = `${outbox.at}gencache_probe`;
  for (const expression of expressions) {
    const { sql, is } = expression;
    const indexed = is === 'id' ? `((${sql}\n))` : `((1)) where (${sql}\n)`;
    const reason = await rolledBack(trx, async (savepoint) => {
      await query(savepoint, `set local search_path = ${SEARCH_PATH}`);
      const types = await columnTypes(savepoint, table);
      await execute(
        savepoint,
        `create table ${probe} (${types.map(({ name, type }) => `${quoted(name)} ${type}`).join(', ')})`,
      );
      await execute(savepoint, `create index gencache_probe_index on ${probe} ${indexed}`);
      const own = await query<{ name: string }>(
        savepoint,
        `select pg_describe_object(refclassid, refobjid, 0) as name from pg_depend
         where classid = 'pg_class'::regclass
           and (refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
                -- its constraints may call functions
                or refclassid = 'pg_type'::regclass
                   and exists (select from pg_type where pg_type.oid = refobjid and typtype = 'd'))
           and objid in (select indexrelid from pg_index where indrelid = ?::regclass)`,
        [probe],
      );
      return own.length === 0 ? undefined : `it uses the ${own[0]!.name}, which the application may replace`;
    });
    if (reason === undefined) continue;
    throw new ConfigurationError(
      `${titleOf(expression)} must depend on the row of ${nameOf(table)} alone, but ${reason}. Use columns, literals, ` +
        'operators and immutable built-in functions.',
    );
  }
}

/** What the recorder has: only built-in functions are found without a schema. */
const SEARCH_PATH = 'pg_catalog, pg_temp';

function expressionsOf({ bumps }: TriggerDefinition): Expression[] {
  return bumps.flatMap(({ ids, when }) => [
    ...ids.flatMap(({ column, expression }): Expression[] => (expression ? [{ sql: column, is: 'id' }] : [])),
    ...(when === undefined ? [] : [{ sql: when, is: 'condition' } as const]),
  ]);
}

/** The properties of an expression's value, or PostgreSQL's reason why it has none. */
async function describeExpression(
  db: Knex,
  table: Table,
  sql: string,
): Promise<Omit<Column, 'name' | 'expression'> | string> {
  return attempt(db, async (savepoint) => {
    await query(savepoint, `set local search_path = ${SEARCH_PATH}`);
    const types = await columnTypes(savepoint, table);
    // A value that PostgreSQL computes at run time: constants are computed while it plans, which may fail (1 / 0).
    const row = types.map(({ name, type }) => `current_setting('gencache.none', true)::${type} as ${quoted(name)}`);
    const rows = await query<{ oid: string }>(
      savepoint,
      // The parameter has the statement sent as one: a second one, after a semicolon, is an error.
      `select pg_typeof(each.value)::oid::text as oid from (select ?::int) as one
       left join (select (${verbatim(sql)}\n) as value from (select ${verbatim(row.join(', '))}) as gencache_row limit 0) as each
       on true`,
      [1],
    );
    const { name: _, ...described } = await typeOf(savepoint, rows[0]!.oid);
    // The collation of an expression may make different texts equal.
    return { ...described, exact: described.exact && described.kind !== 'text' };
  });
}

/** With the schema of each type, under `SEARCH_PATH`. */
async function columnTypes(db: Knex, { oid }: Table): Promise<{ readonly name: string; readonly type: string }[]> {
  return query(
    db,
    `select attname as name, format_type(atttypid, atttypmod) as type from pg_attribute
     where attrelid = ?::oid and attnum > 0 and not attisdropped order by attnum`,
    [oid],
  );
}

/** The result of `work` in a transaction or savepoint of its own, or the message of PostgreSQL's error. */
async function attempt<T extends object>(
  db: Knex,
  work: (savepoint: Knex.Transaction) => Promise<T>,
): Promise<T | string> {
  let result: T | undefined;
  const reason = await rolledBack(db, async (savepoint) => {
    result = await work(savepoint);
    return undefined;
  });
  return reason ?? result!;
}

class RolledBack extends Error {
  constructor(readonly reason: string | undefined) {
    super('rolled back on purpose');
  }
}

async function rolledBack(
  db: Knex,
  work: (savepoint: Knex.Transaction) => Promise<string | undefined>,
): Promise<string | undefined> {
  try {
    return await db.transaction(async (savepoint) => {
      throw new RolledBack(await work(savepoint));
    });
  } catch (error) {
    if (error instanceof RolledBack) return error.reason;
    if (!isItsOwn(error)) throw error;
    return reasonOf(error as Error);
  }
}

/** Whether the expression has caused the error, and not the connection or a missing right. */
function isItsOwn(error: unknown): boolean {
  return !isTransient(error) && !isSqlstate(error, 'insufficient privilege');
}

function titleOf({ sql, is }: Expression): string {
  return `The ${is} ${describe(sql)}`;
}

function nameOf({ schema, name }: Table): string {
  return displayName(schema, name);
}
