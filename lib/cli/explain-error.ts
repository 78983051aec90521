import { describe } from '../errors/describe.js';
import { reasonOf } from '../knex/postgres/sqlstate.js';

/** An error in words. Some errors of drivers have an empty message, and Knex puts the whole query before PostgreSQL's. */
export function explainError(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return error.errors.map(explainError).join('; ');
  if (!(error instanceof Error)) return describe(error);
  const { code } = error as { code?: unknown };
  if (error.message === '') return typeof code === 'string' ? code : error.name;
  return reasonOf(error);
}
