import Table from 'cli-table3';
import type { Phase } from './phase.js';
import type { DemoPostgres } from './postgres.js';
import type { DemoRedis } from './redis.js';

/** A phase, and its first events again with the cache off. */
export interface Measured {
  readonly phase: Phase;
  readonly replay: Phase;
}

export interface Result {
  readonly redis: DemoRedis['kind'];
  readonly postgres: DemoPostgres['kind'];
  readonly cold: Measured;
  readonly warm: Measured;
}

const AVOIDED_MIN = 0.9;
const EXCUSED_MAX = 0.1;

/** The queries that the events of the phase need with the cache off: measured on the replayed events, and scaled. */
export function queriesWithoutCache({ phase, replay }: Measured): number {
  return replay.events === 0 ? 0 : Math.round((replay.queries / replay.events) * phase.events);
}

/** The share of queries that the cache avoided. */
export function avoided(measured: Measured): number {
  const without = queriesWithoutCache(measured);
  return without === 0 ? 0 : 1 - measured.phase.queries / without;
}

/** A sentence for each promise that was broken. */
export function brokenPromises({ cold, warm }: Result): string[] {
  const found: string[] = [];
  for (const [name, measured] of Object.entries({ cold, warm })) {
    const { phase, replay } = measured;
    if (phase.staleReads > 0) found.push(`${phase.staleReads} of ${phase.sampled} ${name} reads were stale.`);
    if (share(phase.excused, phase.sampled) >= EXCUSED_MAX) {
      found.push(
        `${percent(share(phase.excused, phase.sampled))} of the ${name} reads were excused; the limit is 10 %.`,
      );
    }
    if (phase.queries !== phase.queriesRun) {
      found.push(`In the ${name} phase Knex sent ${phase.queries} queries and the cache counted ${phase.queriesRun}.`);
    }
    if (replay.staleReads > 0) {
      found.push(
        `With the cache off ${replay.staleReads} reads differ from the demo's own tables: the oracle is wrong.`,
      );
    }
  }
  if (avoided(warm) < AVOIDED_MIN) {
    found.push(
      `In the warm phase the cache avoided ${percent(avoided(warm))} of the queries; the least is ${percent(AVOIDED_MIN)}.`,
    );
  }
  return found;
}

/** One object on one line: the numbers of the warm phase, and below `cold` those of the cold phase. */
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

  row('events', (phase) => grouped(phase.events));
  row('  in', (phase) => `${phase.seconds.toFixed(1)} s`);
  row('  events/s', (phase) => grouped(phase.events / phase.seconds));
  row('entries read', (phase) => grouped(phase.reads));
  row('  hit ratio', (phase) => percent(share(phase.hits, phase.reads)));
  if (warm.phase.localHits > 0)
    cached('  values from the process', ({ phase }) => percent(share(phase.localHits, phase.reads)));
  row('queries run', (phase) => grouped(phase.queries));
  cached('  without the cache ¹', (measured) => grouped(queriesWithoutCache(measured)));
  cached('  avoided', (measured) => percent(avoided(measured)));
  cached('edits', ({ phase }) => grouped(phase.edits));
  cached('  bumps, global', ({ phase }) => grouped(phase.bumps.global));
  cached('  bumps, detector', ({ phase }) => grouped(phase.bumps.detector));
  cached('  bumps, environment', ({ phase }) => grouped(phase.bumps.environment));
  row('latency of an event, p50', latency(50));
  row('  p90', latency(90));
  row('  p99', latency(99));
  row('  p99.9', latency(99.9));
  row('  worst', latency(100));
  row('reads judged', (phase) => grouped(phase.sampled));
  row('  stale', (phase) => grouped(phase.staleReads));
  row('  excused ²', (phase) => grouped(phase.excused));
  const bypasses = cold.phase.bypasses + warm.phase.bypasses;
  if (bypasses > 0) cached('entries that bypassed the store', ({ phase }) => grouped(phase.bypasses));
  return `${table.toString()}\n${footnotes(cold, warm)}`;
}

function footnotes(cold: Measured, warm: Measured): string {
  const judged = cold.phase.sampled + warm.phase.sampled;
  const stale = cold.phase.staleReads + warm.phase.staleReads;
  return [
    `Stale reads: ${grouped(stale)}, of ${grouped(judged)} that were compared with the tables.`,
    `¹ Measured: the first ${grouped(cold.replay.events)} and ${grouped(warm.replay.events)} events of the phases again with`,
    '  the cache off, scaled to the events of the phase.',
    '² From before an edit of that detector that the relay had not bumped yet when the read began; with --local track, or',
    '  had bumped less than a heartbeat (1 s) before.',
    'Edits are plain Knex and raw SQL, with a migration in the middle of the cold phase, which bumps global. Triggers and a',
    'relay make every bump; no bump is made by hand.',
    'The stream: Zipf 1.1 over detectors; nine events of ten come from a detector’s first environment of two, and the one',
    'to three detectors of an event from fixed groups of three. A cache avoids queries only for events that repeat.',
  ].join('\n');
}

function figures(measured: Measured) {
  const { events, reads, hits, localHits, queries, bumps, staleReads, excused, sampled } = measured.phase;
  return {
    events,
    reads,
    hits,
    hitRatio: rounded(share(hits, reads)),
    localHits,
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

function grouped(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

function percent(ratio: number): string {
  return `${(100 * ratio).toFixed(1)} %`;
}
