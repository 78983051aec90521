import type { Knex } from 'knex';
import { endsWithin } from '../../async/ends-within.js';
import { ConfigurationError } from '../../errors/errors.js';
import { quoted } from '../postgres/identifiers.js';
import { query } from '../postgres/query.js';
import { isSqlstate, serverMessageOf } from '../postgres/sqlstate.js';
import type { OutboxOptions } from './location.js';
import { explainMissingOutbox, OUTBOX_TABLE } from './missing-outbox.js';
import {
  currentRole,
  describeMissingRights,
  findMissingRights,
  grantStatements,
  type NeededRights,
} from './missing-rights.js';
import { findHiddenTables, HiddenRowsError } from './row-security.js';

/** Time limit for the queries that find the missing rights, in ms: the pool may have no connection but the failed one. */
const FIND_MS = 1_000;

/**
 * The error of a query; a ConfigurationError with the remedy where there is no outbox of this release, where PostgreSQL refuses
 * the role, and where it is a standby. Up to three queries on another connection, after such an error alone.
 */
export async function explainOutboxError(
  db: Knex,
  error: unknown,
  { outbox, rights }: { readonly outbox: OutboxOptions; readonly rights: NeededRights },
): Promise<unknown> {
  if (error instanceof Error && isOfStandby(error)) return explainReadOnly(db, error);
  if (!(error instanceof Error) || !isRefusal(error, outbox)) return explainMissingOutbox(error, outbox);
  let found: Refusal | undefined;
  const finding = findRefusal(db, outbox, rights).then((refusal) => void (found = refusal));
  await endsWithin(FIND_MS, finding);
  const cause = { cause: error };
  const { role = '', missing = [], hidden = false } = found ?? {};
  if (missing.length > 0) {
    return new ConfigurationError(
      `The role ${role} lacks rights on the outbox: ${describeMissingRights(missing)}. As the owner of the outbox, run: ` +
        grantStatements(role, missing),
      cause,
    );
  }
  if (hidden !== false) return hidden;
  const remedy = executeRemedy(error, role);
  if (remedy !== undefined) {
    return new ConfigurationError(`PostgreSQL refused the role ${role}: ${serverMessageOf(error)}. ${remedy}`, cause);
  }
  return new ConfigurationError(
    `PostgreSQL refused ${found === undefined ? 'the role' : `the role ${role}`}: ${serverMessageOf(error)}. As the owner of ` +
      `the outbox, grant the role USAGE on its schema; ${describeRights(rights)}.`,
    cause,
  );
}

/**
 * The error of a statement of gencache's own that PostgreSQL refused since it may only read there: a ConfigurationError with the
 * remedy. One query on another connection, after such a refusal alone.
 */
export async function explainReadOnly(db: Knex, error: unknown): Promise<unknown> {
  if (!(error instanceof Error) || !(isSqlstate(error, 'read-only transaction') || isOfStandby(error))) return error;
  let rows: { standby: boolean }[] = [];
  const asking = query<{ standby: boolean }>(db, 'select pg_catalog.pg_is_in_recovery() as standby');
  await endsWithin(
    FIND_MS,
    asking.then((found) => void (rows = found)),
  );
  const [found] = rows;
  if (found === undefined || (!found.standby && isOfStandby(error))) return error;
  return new ConfigurationError(
    found.standby
      ? `The outbox needs the primary of PostgreSQL, but this server is a standby: ${serverMessageOf(error)}. Connect \`db\` to the ` +
          'primary. After a promotion this server works as well.'
      : `The outbox needs a transaction that may write, but this one is read-only: ${serverMessageOf(error)}. Begin it with ` +
          '`set transaction read write`, or switch `default_transaction_read_only` off.',
    { cause: error },
  );
}

/** Perhaps: a standby has no unlogged tables, and gencache_boot is one. */
function isOfStandby(error: Error): boolean {
  return isSqlstate(error, 'feature not supported');
}

interface Refusal {
  readonly role: string;
  readonly missing: Awaited<ReturnType<typeof findMissingRights>>;
  readonly hidden: HiddenRowsError | false;
}

async function findRefusal(db: Knex, outbox: OutboxOptions, rights: NeededRights): Promise<Refusal> {
  const role = await currentRole(db);
  const missing = await findMissingRights(db, outbox, rights);
  const tables = missing.length > 0 ? [] : await findHiddenTables(db, outbox);
  return { role, missing, hidden: tables.length > 0 && new HiddenRowsError(tables) };
}

/** Functions of PostgreSQL's own, with their arguments, that every role may call until that is revoked, and that have no substitute. */
const NEEDED_FUNCTIONS = {
  pg_postmaster_start_time: '',
  pg_current_snapshot: '',
  pg_visible_in_snapshot: 'xid8, pg_snapshot',
  pg_current_xact_id: '',
  pg_current_xact_id_if_assigned: '',
} as const;
const NEEDED_FUNCTION = new RegExp(`(?:^|[^A-Za-z0-9_])(${Object.keys(NEEDED_FUNCTIONS).join('|')})(?![A-Za-z0-9_])`);

/** The statement that mends a refusal of a function of PostgreSQL's own; undefined for other errors. */
export function executeRemedy(error: unknown, role: string): string | undefined {
  if (!(error instanceof Error) || !isSqlstate(error, 'insufficient privilege')) return undefined;
  const name = NEEDED_FUNCTION.exec(serverMessageOf(error))?.[1] as keyof typeof NEEDED_FUNCTIONS | undefined;
  if (name === undefined) return undefined;
  return `As a superuser, run: grant execute on function pg_catalog.${name}(${NEEDED_FUNCTIONS[name]}) to ${quoted(role)};`;
}

/** Not the refusal of a table of the application's own. */
function isRefusal(error: Error, { schema }: OutboxOptions): boolean {
  if (!isSqlstate(error, 'insufficient privilege')) return false;
  const message = serverMessageOf(error);
  return (
    OUTBOX_TABLE.test(message) ||
    NEEDED_FUNCTION.test(message) ||
    (schema !== undefined && message.endsWith(` ${schema}`))
  );
}

function describeRights(rights: NeededRights): string {
  return Object.entries(rights)
    .map(([table, each]) => `${each.join(', ')} on ${table}`)
    .join('; ');
}
