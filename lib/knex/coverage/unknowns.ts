import type { ReadEntry } from './read-entry.js';
import type { ReadStatements } from './read-statements.js';
import type { ReadRelation } from './relations.js';
import type { CoverageFinding, UnknownKind } from './report.js';
import { verdictOf } from './verdict-of-function.js';

/** What can't be seen of an entry's statements. */
export function unknownsOf(
  entry: ReadEntry,
  statements: ReadStatements['statements'],
  relations: ReadStatements['relations'],
): CoverageFinding[] {
  const findings: CoverageFinding[] = [];
  const found = (kind: UnknownKind, subject: string, message: string, remedy: string) =>
    findings.push({ severity: 'unknown', kind, entries: [entry.name], subject, message, remedy });
  const { name } = entry;
  const own = `entry ${name}`;
  if (entry.error !== undefined) {
    const message = `The loader of ${name} failed in a read-only transaction: ${messageOf(entry.error)}.`;
    found(
      'loader failed',
      own,
      message,
      'Pass samples that it can load; a loader that writes can be read in part alone.',
    );
  } else if (entry.statements.length === 0) {
    const message = `The loader of ${name} sent no statement by the \`db\` of its context.`;
    found('no statement', own, message, 'Read by `db`, or accept the entry and keep its triggers by hand.');
  } else if (entry.rows === 0) {
    findings.push({
      ...{ severity: 'note', kind: 'no rows', entries: [name], subject: own },
      message: `The samples of ${name} have no rows: statements that its loader sends for found rows were not seen.`,
      remedy: 'Pass samples that have rows.',
    });
  }
  for (const { sql } of entry.statements) {
    const read = statements.get(sql)!;
    if ('unreadable' in read) {
      const message = `A statement of ${name} can't be read, since ${read.unreadable} ${shortened(sql)}`;
      found(
        'statement not readable',
        own,
        message,
        'Send a single SELECT, or accept the entry and keep its triggers by hand.',
      );
      continue;
    }
    for (const called of read.functions) {
      const verdict = verdictOf(called);
      if (verdict === 'clock') clock(called.name);
      else if (verdict === 'unseen') {
        const message = called.builtIn
          ? `${called.name} reads beyond its arguments, where no trigger watches.`
          : `The tables that the function ${called.name} reads can't be seen.`;
        const remedy = called.builtIn
          ? 'Pass the value as a parameter, or leave it out of the entry.'
          : 'Watch them, and accept the function; or declare it IMMUTABLE if it reads none.';
        found('function', `function ${called.name}`, message, remedy);
      }
    }
    if (read.graph.readsClock) clock('the current date or time');
    for (const oid of read.columns.keys()) unseenRelation(relations.get(oid)!);
  }
  return findings;

  function clock(called: string): void {
    const message = `The answer of ${name} changes as time passes (${called}), and no write says so.`;
    found(
      'clock',
      `clock of ${name}`,
      message,
      'Compare with the time after the read; or accept it: the TTL is then the limit.',
    );
  }

  function unseenRelation({ shown, kind, system, temporary, hidesRows }: ReadRelation): void {
    if (system)
      found(
        'system table',
        `system table ${shown}`,
        `${shown} belongs to PostgreSQL, and has no triggers.`,
        'Leave it out of the entry.',
      );
    else if (temporary)
      found(
        'temporary table',
        `temporary table ${shown}`,
        `${shown} is a temporary table.`,
        'Read a table that all processes see.',
      );
    else if (kind === 'f')
      found(
        'foreign table',
        `foreign table ${shown}`,
        `${shown} is a foreign table, whose writes happen elsewhere.`,
        'Watch it in its own database, or bump after writes; then accept it.',
      );
    else if (kind === 'm')
      found(
        'materialized view',
        `materialized view ${shown}`,
        `${shown} changes by REFRESH, which no trigger sees.`,
        'Bump after each REFRESH, and accept it.',
      );
    else if (kind === 'S')
      found(
        'sequence',
        `sequence ${shown}`,
        `${shown} is a sequence, and has no triggers.`,
        'Leave it out of the entry.',
      );
    else if (hidesRows)
      found(
        'rows hidden by policies',
        `policies of ${shown}`,
        `Row level security applies to ${shown}, and the tables that its policies read can't be seen.`,
        'Watch them, and accept the policies; or read by a role with BYPASSRLS.',
      );
  }
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/^[\s\S]* - /, '');
}

function shortened(sql: string): string {
  const line = sql.replaceAll(/\s+/g, ' ').trim();
  return `\`${line.length > 100 ? `${line.slice(0, 100)}…` : line}\``;
}
