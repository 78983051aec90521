import { describe } from '../errors/describe.js';
import { serverMessageOf } from '../knex/postgres/sqlstate.js';

/** An error in words: of drivers' errors some have none, and Knex puts the whole query before others. */
export function explain(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return error.errors.map(explain).join('; ');
  if (!(error instanceof Error)) return describe(error);
  const { code } = error as { code?: unknown };
  if (error.message === '') return typeof code === 'string' ? code : error.name;
  const fromPostgres = typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code);
  return fromPostgres ? serverMessageOf(error) : error.message;
}
