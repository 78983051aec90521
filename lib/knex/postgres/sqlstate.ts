/**
 * The SQLSTATEs that gencache tells apart, in one table: https://www.postgresql.org/docs/current/errcodes-appendix.html
 *
 * A key is a whole SQLSTATE, a class (its first two characters) or a part of a class. The longest key that begins an
 * error's SQLSTATE decides; a SQLSTATE without an entry is a final error of that statement.
 */
interface SqlstateEntry {
  readonly name: string;
  /** Its meaning here. */
  readonly meaning: string;
  /** Whether another attempt may succeed, with nothing changed by hand. */
  readonly retry: boolean;
  /** Whether there is no session, or none any more. */
  readonly noSession?: true;
  /** Whether a COMMIT that fails with it may have committed. */
  readonly commitUnknown?: true;
}

const SQLSTATES = {
  '0A000': {
    name: 'feature not supported',
    meaning: 'among others: a standby has no unlogged tables',
    retry: false,
  },
  '08': {
    name: 'connection exception',
    meaning: 'the connection was lost, or a pooler lost its own',
    retry: true,
    noSession: true,
    commitUnknown: true,
  },
  '25': { name: 'invalid transaction state', meaning: 'the transaction had failed or ended before', retry: true },
  '25006': {
    name: 'read-only transaction',
    meaning: 'the transaction may not write: a read-only default, or a standby',
    retry: true,
  },
  '25P01': { name: 'no active SQL transaction', meaning: 'raw SQL ended the transaction', retry: true },
  '28': {
    name: 'invalid authorization',
    meaning: 'the role or its password is refused',
    retry: false,
    noSession: true,
  },
  '23505': { name: 'unique violation', meaning: 'a row with that key exists', retry: false },
  '3D000': { name: 'invalid catalog name', meaning: 'the database does not exist', retry: false, noSession: true },
  '3F000': { name: 'invalid schema name', meaning: 'the schema does not exist', retry: false },
  '40': { name: 'transaction rollback', meaning: 'the transaction lost a conflict with another', retry: true },
  '40001': {
    name: 'serialization failure',
    meaning: 'another transaction changed what this one, of an older snapshot, changes',
    retry: true,
  },
  '40P01': { name: 'deadlock detected', meaning: 'the transaction was cancelled to end a deadlock', retry: true },
  '42501': { name: 'insufficient privilege', meaning: 'the role lacks a right', retry: false },
  '42P01': { name: 'undefined table', meaning: 'the table does not exist, or is not on the search path', retry: false },
  '42710': { name: 'duplicate object', meaning: 'an object of that name exists', retry: false },
  '42723': { name: 'duplicate function', meaning: 'a function of that name exists', retry: false },
  '42P06': { name: 'duplicate schema', meaning: 'the schema exists', retry: false },
  '42P07': { name: 'duplicate table', meaning: 'a table, index or sequence of that name exists', retry: false },
  '53': { name: 'insufficient resources', meaning: 'memory, disk or connections are used up', retry: true },
  '53300': { name: 'too many connections', meaning: 'no connection is left', retry: true, noSession: true },
  '55': { name: 'object not in prerequisite state', meaning: 'the object is in use', retry: true },
  '55P03': { name: 'lock not available', meaning: 'a lock was not granted within lock_timeout', retry: true },
  '57': { name: 'operator intervention', meaning: 'an operator, or a timeout, interrupted the session', retry: true },
  '57014': { name: 'query canceled', meaning: 'statement_timeout passed: a retry takes as long again', retry: false },
  '57P': {
    name: 'shutdown',
    meaning: 'the server ended the session, or does not accept one yet',
    retry: true,
    noSession: true,
    commitUnknown: true,
  },
  '58': { name: 'system error', meaning: 'the server met an error of its disk', retry: true, commitUnknown: true },
} as const satisfies Readonly<Record<string, SqlstateEntry>>;

const ENTRIES: Readonly<Record<string, SqlstateEntry>> = SQLSTATES;

type SqlstateName = (typeof SQLSTATES)[keyof typeof SQLSTATES]['name'];

/** Whether the error is that of PostgreSQL which the table gives this name, as its most exact one. */
export function isSqlstate(error: unknown, name: SqlstateName): boolean {
  return entryOf(error)?.name === name;
}

/**
 * Whether another attempt may not meet the error again: one of the connection, which has no SQLSTATE, or one that the
 * table says to retry.
 */
export function isTransient(error: unknown): boolean {
  return sqlstateOf(error) === undefined || entryOf(error)?.retry === true;
}

/** Whether PostgreSQL refuses or has ended the session. */
export function isWithoutSession(error: unknown): boolean {
  return entryOf(error)?.noSession === true;
}

/**
 * Whether the error says that COMMIT did not take effect. A FATAL, a lost connection, and a pooler's word for either say
 * nothing: a session that was ended while it waited for a standby has committed.
 */
export function isCommitRefusal(error: unknown): boolean {
  const { severity } = (error ?? {}) as { severity?: unknown };
  return severity === 'ERROR' && sqlstateOf(error) !== undefined && entryOf(error)?.commitUnknown !== true;
}

/** The SQLSTATE of an error of PostgreSQL; undefined for others. */
export function sqlstateOf(error: unknown): string | undefined {
  const { severity, code } = (error ?? {}) as { severity?: unknown; code?: unknown };
  // A code of Node's may have five letters, too (EPIPE); only the server's errors have a severity.
  return typeof severity === 'string' && typeof code === 'string' ? code : undefined;
}

/** The server's message alone: Knex puts the whole query before it. */
export function serverMessageOf({ message }: Error): string {
  return message.slice(message.lastIndexOf(' - ') + 1).replace(/^- /, '');
}

/**
 * The reason why something failed, in one line for logs: for a query, without the SQL that Knex puts before it, which may
 * be longer than a screen.
 */
export function reasonOf(error: Error): string {
  const isQuery = sqlstateOf(error) !== undefined || SQL.test(error.message);
  return isQuery ? serverMessageOf(error) : error.message;
}

/** The beginning of a statement, for errors of a connection, which have no SQLSTATE. */
const SQL =
  /^\s*(?:select|with|insert|update|delete|set|do|begin|commit|rollback|savepoint|release|lock|create|drop|alter)\b/i;

function entryOf(error: unknown): SqlstateEntry | undefined {
  const sqlstate = sqlstateOf(error);
  if (sqlstate === undefined) return undefined;
  return ENTRIES[sqlstate] ?? ENTRIES[sqlstate.slice(0, 3)] ?? ENTRIES[sqlstate.slice(0, 2)];
}
