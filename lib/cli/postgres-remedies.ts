import type { Knex } from 'knex';
import { isOutboxMissing } from '../knex/outbox/missing-outbox.js';
import type { OutboxOptions } from '../knex/outbox/location.js';
import { isSqlstate, isWithoutSession } from '../knex/postgres/sqlstate.js';
import { explainError } from './explain-error.js';
import { currentRole, DOCTOR_RIGHTS, findMissingRights, grantStatements } from '../knex/outbox/missing-rights.js';
import { UsageError } from './usage-error.js';

/** Node's codes of sockets and names. */
const NO_CONNECTION = /^E[A-Z]{3,}$/;

/** Adds a remedy to an error of PostgreSQL; returns any other error itself. */
export async function withPostgresRemedy(db: Knex, outbox: OutboxOptions, error: unknown): Promise<unknown> {
  if (error instanceof UsageError) return error;
  const first = firstOf(error);
  const code = codeOf(first);
  if (isSqlstate(first, 'insufficient privilege')) {
    // A role without access to the catalogs gets the rest of the message.
    const role = await currentRole(db).catch(() => 'this role');
    const missing = await findMissingRights(db, outbox, DOCTOR_RIGHTS).catch(() => []);
    const remedy =
      missing.length > 0
        ? `As the owner of the outbox, run: ${grantStatements(role, missing)}`
        : 'Run the command as the owner of that object, or grant the right: `grant usage on schema ... to ...` for a schema.';
    return new Error(`PostgreSQL refused the role ${role}: ${explainError(error)}. ${remedy}`, { cause: error });
  }
  if (isOutboxMissing(error) || isSqlstate(first, 'invalid schema name')) {
    return new Error(
      `There is no outbox of this release: ${explainError(error)}. Run \`gencache outbox install\`, or name the schema ` +
        'of the outbox by --schema.',
      { cause: error },
    );
  }
  if (
    code === undefined
      ? /timeout|terminated/i.test(explainError(error))
      : NO_CONNECTION.test(code) || isWithoutSession(first)
  ) {
    return new Error(
      `PostgreSQL is unreachable: ${explainError(error)}. Check DATABASE_URL (or --database), the server and the network.`,
      { cause: error },
    );
  }
  return error;
}

/** The first error of several attempts (one for each address), unless the bundle has a code itself. */
function firstOf(error: unknown): unknown {
  const isBundle = codeOf(error) === undefined && error instanceof AggregateError && error.errors.length > 0;
  return isBundle ? firstOf(error.errors[0]) : error;
}

function codeOf(error: unknown): string | undefined {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' ? code : undefined;
}
