import { createHash } from 'node:crypto';
import type { Knex } from 'knex';

/** A text literal, whatever it holds and whatever `standard_conforming_strings` says. */
export function literal(text: string): string {
  const doubled = text.replaceAll("'", "''");
  return doubled.includes('\\') ? ` E'${doubled.replaceAll('\\', '\\\\')}'` : `'${doubled}'`;
}

/** The body of a function as a literal whose delimiter does not occur in it. */
export function functionBody(source: string): string {
  const tag = `$gencache_${nameHash(source)}$`;
  return `${tag}${source}${tag}`;
}

/** 16 hexadecimal digits that stand for these values in the names of what is generated. */
export function nameHash(...values: unknown[]): string {
  return createHash('sha256').update(JSON.stringify(values)).digest('hex').slice(0, 16);
}

/**
 * Runs a statement without parameters as it is written. Knex would take a question mark for a parameter, also within
 * a quoted identifier, and its escape loses backslashes; so such a statement is sent as a value.
 */
export async function execute(trx: Knex.Transaction, statement: string): Promise<void> {
  if (!statement.includes('?')) {
    await trx.raw(statement);
    return;
  }
  await trx.raw(`select set_config('gencache.statement', ?, true)`, [statement]);
  await trx.raw(`do $$ begin execute current_setting('gencache.statement'); end $$`);
  await trx.raw(`select set_config('gencache.statement', '', true)`);
}
