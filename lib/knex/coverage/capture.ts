import type { Knex } from 'knex';
import { inNoContext } from '../../async/no-context.js';
import { query } from '../postgres/query.js';
import type { EntryDefinition } from '../../model/entry-definition.js';

/** A statement as a loader sent it. */
export interface CapturedStatement {
  readonly sql: string;
  readonly bindings: readonly unknown[];
}

export interface Capture {
  readonly statements: readonly CapturedStatement[];
  /** Of all loads together. */
  readonly rows: number;
  readonly error?: unknown;
}

/** The commands of transactions within the loader's, which read nothing. */
const CONTROL = /^\s*(?:begin|commit|rollback|savepoint|release)\b/i;

/**
 * Calls the loader of an entry for these ids, in a read-only transaction that is rolled back, and takes the statements
 * that it sends by its context's Knex.
 */
export async function capture(
  db: Knex,
  definition: EntryDefinition,
  ids: readonly Readonly<Record<string, unknown>>[],
): Promise<Capture> {
  const trx = await db.transaction();
  const statements: CapturedStatement[] = [];
  const take = ({ sql, bindings }: { sql: string; bindings?: readonly unknown[] }) => {
    if (!CONTROL.test(sql)) statements.push({ sql, bindings: bindings ?? [] });
  };
  const load = (some: typeof ids) =>
    inNoContext(definition.load, some as never, { db: trx, signal: new AbortController().signal } as never);
  try {
    // Also within a transaction of the caller, where it ends with the savepoint.
    await query(trx, 'set transaction read only');
    trx.on('query', take);
    let rows = 0;
    const size = definition.shape === 'value' ? 1 : ids.length;
    for (let i = 0; i < ids.length; i += size) rows += (await load(ids.slice(i, i + size))).filter(isThere).length;
    return { statements, rows };
  } catch (error) {
    return { statements, rows: 0, error };
  } finally {
    trx.removeListener('query', take);
    await trx.rollback();
  }
}

function isThere(row: unknown): boolean {
  return row !== undefined && row !== null;
}
