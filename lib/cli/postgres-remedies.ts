import type { Knex } from 'knex';
import { isOutboxMissing } from '../knex/outbox/missing-outbox.js';
import type { OutboxOptions } from '../knex/outbox/location.js';
import { sqlstateOf, INSUFFICIENT_PRIVILEGE, UNDEFINED_SCHEMA } from '../knex/postgres/sqlstate.js';
import { UsageError } from './arguments.js';
import { explain } from './explain.js';
import { currentRole, grants, lackingRights } from './rights.js';

/** What Node and PostgreSQL say when there is no session: of sockets, of names, of passwords, of a server that starts. */
const NO_SESSION = /^(E[A-Z]{3,}|08...|28...|3D000|53300|57P0.)$/;

/** Says of an error that it is PostgreSQL's, where that was looked for, and what to do. Others are left as they are. */
export async function toldOfPostgres(db: Knex, outbox: OutboxOptions, error: unknown): Promise<unknown> {
  if (error instanceof UsageError) return error;
  const code = sqlstateOf(firstOf(error));
  if (code === INSUFFICIENT_PRIVILEGE) {
    // Whoever may not look that up is told the rest.
    const role = await currentRole(db).catch(() => 'this role');
    const lacking = await lackingRights(db, outbox).catch(() => []);
    const remedy =
      lacking.length > 0
        ? `As the owner of the outbox: ${grants(role, lacking)}`
        : 'Run it as the owner of that, or grant it: a schema is granted by `grant usage on schema ... to ...`.';
    return new Error(`PostgreSQL refuses it to the role ${role}: ${explain(error)}. ${remedy}`, { cause: error });
  }
  if (isOutboxMissing(error) || code === UNDEFINED_SCHEMA) {
    return new Error(
      `This works on an outbox of this release: ${explain(error)}. Run \`gencache outbox install\`, or say where it is: --schema.`,
      { cause: error },
    );
  }
  if (code !== undefined ? NO_SESSION.test(code) : /timeout|terminated/i.test(explain(error))) {
    return new Error(
      `PostgreSQL can't be asked: ${explain(error)}. See DATABASE_URL (or --database), the server and the network.`,
      {
        cause: error,
      },
    );
  }
  return error;
}

/** Of several addresses tried, the first's, unless all of them have a code. */
function firstOf(error: unknown): unknown {
  const isBundle = sqlstateOf(error) === undefined && error instanceof AggregateError && error.errors.length > 0;
  return isBundle ? firstOf(error.errors[0]) : error;
}
