import Table from 'cli-table3';
import { kept, type Row } from './row.js';

/** The rows for a person, to read at a glance: ✓ keeps its limits, ✗ misses one. */
export function table(rows: readonly Row[]): string {
  const shown = new Table({
    head: ['', 'measure', 'subject / baseline', 'ratio', '95 %', 'subject', 'baseline', 'commands'],
    colAligns: ['left', 'left', 'left', 'right', 'right', 'right', 'right', 'right'],
    colWidths: [3, null, 48],
    wordWrap: true,
    style: { head: ['bold'], compact: true },
  });
  for (const row of rows) {
    const { name, subject, baseline, ratio, interval, subjectMs, baselineMs, commands, limit, note } = row;
    const ok = kept(row);
    shown.push([
      ok === undefined ? ' ' : ok ? '✓' : '✗',
      name,
      `${subject} / ${baseline}${note === undefined ? '' : ` (${note})`}`,
      limit?.atLeast === undefined ? atMost(ratio.toFixed(2), limit?.ratio) : `${ratio.toFixed(2)} ≥ ${limit.atLeast}`,
      subjectMs === null || row.unit === 'queries' ? '' : interval.map((end) => end.toFixed(2)).join('–'),
      row.subjectBytes === undefined ? duration(subjectMs) : size(row.subjectBytes),
      row.baselineBytes === undefined ? duration(baselineMs) : size(row.baselineBytes),
      commands === null ? '' : atMost(`${commands}`, limit?.commands),
    ]);
  }
  return shown.toString();
}

function atMost(shown: string, limit: number | undefined): string {
  return limit === undefined ? shown : `${shown} ≤ ${limit}`;
}

function duration(ms: number | null): string {
  if (ms === null) return '';
  return ms < 1 ? `${(1_000 * ms).toFixed(0)} µs` : `${ms.toFixed(1)} ms`;
}

function size(bytes: number): string {
  return bytes < 10_000 ? `${Math.round(bytes)} B` : `${(bytes / 1_000_000).toFixed(2)} MB`;
}
