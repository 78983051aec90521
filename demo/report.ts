import Table from 'cli-table3';
import type { Phase } from './phase.js';

/** A phase, and some of its events again with the cache off. */
export interface Measured {
  readonly phase: Phase;
  readonly replay: Phase;
}

export interface Result {
  readonly redis: 'embedded' | 'external';
  readonly postgres: 'embedded' | 'external';
  readonly cold: Measured;
  readonly warm: Measured;
}

const AVOIDED_MIN = 0.9;
const EXCUSED_MAX = 0.1;

/** The queries of as many events with the cache off: measured on the events replayed, scaled to those of the phase. */
export function queriesWithoutCache({ phase, replay }: Measured): number {
  return replay.events === 0 ? 0 : Math.round((replay.queries / replay.events) * phase.events);
}

/** The share of queries that the cache has avoided. */
export function avoided(measured: Measured): number {
  const without = queriesWithoutCache(measured);
  return without === 0 ? 0 : 1 - measured.phase.queries / without;
}

/** What must not be, in words; nothing if all is well. */
export function complaints({ cold, warm }: Result): string[] {
  const found: string[] = [];
  for (const [name, measured] of Object.entries({ cold, warm })) {
    const { phase, replay } = measured;
    if (phase.staleReads > 0) found.push(`${phase.staleReads} of ${phase.sampled} ${name} reads were stale.`);
    if (share(phase.excused, phase.sampled) >= EXCUSED_MAX) {
      found.push(
        `${percent(share(phase.excused, phase.sampled))} of the ${name} reads needed an excuse: 10 % or more.`,
      );
    }
    if (phase.queries !== phase.queriesRun) {
      found.push(`In the ${name} phase Knex sent ${phase.queries} queries and the cache counted ${phase.queriesRun}.`);
    }
    if (replay.staleReads > 0) {
      found.push(
        `With the cache off ${replay.staleReads} reads differ from the demo's own tables: its oracle is wrong.`,
      );
    }
  }
  if (avoided(warm) < AVOIDED_MIN) {
    found.push(`Warm, ${percent(avoided(warm))} of the queries were avoided: less than ${percent(AVOIDED_MIN)}.`);
  }
  return found;
}

/** One object on one line; its own numbers are the warm phase's. */
export function toJson({ cold, warm, redis, postgres }: Result): string {
  return JSON.stringify({ ...figures(warm), redis, postgres, cold: { ...figures(cold), redis, postgres } });
}

export function toTable({ cold, warm }: Result): string {
  const table = new Table({
    head: ['', 'cold', 'warm', 'cache off'],
    colAligns: ['left', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  const phases = [cold.phase, warm.phase, warm.replay];
  const row = (label: string, cell: (phase: Phase) => string) => table.push([label, ...phases.map(cell)]);
  const cached = (label: string, cell: (measured: Measured) => string) =>
    table.push([label, cell(cold), cell(warm), '']);
  const latency = (percentile: number) => (phase: Phase) => `${milliseconds(phase, percentile)} ms`;

  row('events', (phase) => count(phase.events));
  row('  in', (phase) => `${phase.seconds.toFixed(1)} s`);
  row('  events/s', (phase) => count(phase.events / phase.seconds));
  row('entries read', (phase) => count(phase.reads));
  row('  hit ratio', (phase) => percent(share(phase.hits, phase.reads)));
  row('queries run', (phase) => count(phase.queries));
  cached('  without the cache ¹', (measured) => count(queriesWithoutCache(measured)));
  cached('  avoided', (measured) => percent(avoided(measured)));
  cached('edits', ({ phase }) => count(phase.edits));
  cached('  bumps, global', ({ phase }) => count(phase.bumps.global));
  cached('  bumps, detector', ({ phase }) => count(phase.bumps.detector));
  cached('  bumps, environment', ({ phase }) => count(phase.bumps.environment));
  row('latency of an event, p50', latency(50));
  row('  p90', latency(90));
  row('  p99', latency(99));
  row('  p99.9', latency(99.9));
  row('  worst', latency(100));
  row('reads judged', (phase) => count(phase.sampled));
  row('  stale', (phase) => count(phase.staleReads));
  row('  excused ²', (phase) => count(phase.excused));
  const bypasses = cold.phase.bypasses + warm.phase.bypasses;
  if (bypasses > 0) cached('entries that bypassed the store', ({ phase }) => count(phase.bypasses));
  return `${table.toString()}\n${footnotes(cold, warm)}`;
}

function footnotes(cold: Measured, warm: Measured): string {
  const judged = cold.phase.sampled + warm.phase.sampled;
  const stale = cold.phase.staleReads + warm.phase.staleReads;
  return [
    `Stale reads: ${stale === 0 ? 'none' : count(stale)}, of ${count(judged)} compared with what the tables held.`,
    `¹ Measured: the first ${count(cold.replay.events)} and ${count(warm.replay.events)} events of the phases again with`,
    '  the cache off, scaled to the events of the phase.',
    '² As old as from before an edit of that detector that the relay had not bumped yet when the read began.',
    'Edits are plain Knex and raw SQL, and a migration in the middle of the cold phase,',
    'which bumps everything: nobody bumps by hand, triggers and a relay do.',
    'The stream: Zipf 1.1 over detectors; nine events of ten come from a detector’s first environment of two, and the one',
    'to three detectors of an event from fixed groups of three. What it does not repeat, a cache can’t avoid.',
  ].join('\n');
}

function figures(measured: Measured) {
  const { events, reads, hits, queries, bumps, staleReads, excused, sampled } = measured.phase;
  return {
    events,
    reads,
    hits,
    hitRatio: rounded(share(hits, reads)),
    queries,
    queriesWithoutCache: queriesWithoutCache(measured),
    bumps,
    staleReads,
    excused,
    sampled,
    p50Ms: Number(milliseconds(measured.phase, 50)),
    p99Ms: Number(milliseconds(measured.phase, 99)),
  };
}

function milliseconds({ latencies }: Phase, percentile: number): string {
  return (latencies.getValueAtPercentile(percentile) / 1_000).toFixed(3);
}

function share(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}

function rounded(ratio: number): number {
  return Number(ratio.toFixed(4));
}

function count(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

function percent(ratio: number): string {
  return `${(100 * ratio).toFixed(1)} %`;
}
