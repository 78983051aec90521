import { createHash } from 'node:crypto';
import type { Knex } from 'knex';
import { query } from './query.js';

/** A text literal, for any characters and either value of `standard_conforming_strings`. */
export function literal(text: string): string {
  const doubled = text.replaceAll("'", "''");
  return doubled.includes('\\') ? ` E'${doubled.replaceAll('\\', '\\\\')}'` : `'${doubled}'`;
}

/** The body of a function as a literal whose delimiter does not occur in it. */
export function functionBody(source: string): string {
  const tag = `$gencache_${nameHash(source)}$`;
  return `${tag}${source}${tag}`;
}

/** 16 hexadecimal digits that stand for these values in generated names. */
export function nameHash(...values: unknown[]): string {
  return createHash('sha256').update(JSON.stringify(values)).digest('hex').slice(0, 16);
}

/**
 * Runs a statement without parameters, unchanged. Knex takes a question mark for a parameter, also within a quoted
 * identifier, and its escape loses backslashes; so a statement with a question mark is sent as a value.
 */
export async function execute(trx: Knex.Transaction, statement: string): Promise<void> {
  if (!statement.includes('?')) {
    await query(trx, statement);
    return;
  }
  await query(trx, `select set_config('gencache.statement', ?, true)`, [statement]);
  await query(trx, `do $$ begin execute current_setting('gencache.statement'); end $$`);
  await query(trx, `select set_config('gencache.statement', '', true)`);
}
