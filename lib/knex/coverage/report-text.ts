import { indented } from './proposal.js';
import type { CoverageFinding, CoverageReport } from './report.js';

const HEADINGS = { gap: 'Changes that would go unseen', unknown: 'Not known', note: 'Notes' } as const;
const MARKS = { gap: '✗', unknown: '?', note: '·' } as const;

/** The report for a person: the result, the entries with what they read, the findings, and the migration to paste. */
export function coverageText(report: Omit<CoverageReport, 'text'>): string {
  const lines: string[] = [headline(report), ''];
  const tables = new Set(report.entries.flatMap((entry) => entry.tables.map(({ table }) => table)));
  const width = Math.max(0, ...[...tables].map((table) => table.length));
  for (const { entry, statements, tables: read } of report.entries) {
    lines.push(`  ${entry}  (${count(statements.length, 'statement')})`);
    for (const { table, columns, covered } of read) {
      lines.push(`    ${covered ? '✓' : '✗'} ${table.padEnd(width)}  ${columns.join(', ') || '(rows alone)'}`);
    }
  }
  for (const severity of ['gap', 'unknown', 'note'] as const) {
    const found = report.findings.filter((finding) => finding.severity === severity);
    if (found.length === 0) continue;
    lines.push('', `${HEADINGS[severity]}:`);
    for (const [i, finding] of found.entries()) {
      lines.push(findingLine(finding, report.entries.length > 1));
      // One remedy for the findings above it.
      if (finding.remedy !== found[i + 1]?.remedy) lines.push(`    -> ${finding.remedy}`);
    }
  }
  if (report.migration !== '') {
    lines.push('', 'The migration to paste; bump everything once after it:', '', indented(report.migration.trimEnd()));
  }
  return lines.join('\n');
}

function headline({ cache, ok, entries, findings }: Omit<CoverageReport, 'text'>): string {
  const tables = new Set(entries.flatMap((entry) => entry.tables.map(({ table }) => table))).size;
  const read = `${count(entries.length, 'entry', 'entries')} of ${cache} ${entries.length === 1 ? 'reads' : 'read'} ${count(tables, 'table')}`;
  if (ok) return `${read}, and triggers watch all that they read.`;
  const gaps = findings.filter(({ severity }) => severity === 'gap').length;
  const unknown = findings.filter(({ severity }) => severity === 'unknown').length;
  const parts = [...(gaps > 0 ? [count(gaps, 'gap')] : []), ...(unknown > 0 ? [`${unknown} unknown`] : [])];
  return `${read}: ${parts.join(', ')}.`;
}

function findingLine({ severity, entries, message }: CoverageFinding, named: boolean): string {
  return `  ${MARKS[severity]} ${message}${named && entries.length > 0 ? `  [${entries.join(', ')}]` : ''}`;
}

function count(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}
