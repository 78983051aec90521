import { setImmediate as turn } from 'node:timers/promises';
import { build, type Histogram } from 'hdr-histogram-js';
import type { GenerationalCache } from '../lib/index.js';
import type { Workflow, WorkflowCache } from '../lib/workflow-engine/index.js';
import type { Bumps } from './bumps.js';
import type { Oracle, ReadSpan } from './oracle.js';
import type { DetectorEvent } from './stream.js';

/** The objects that a phase works on and reads its numbers from. */
export interface Workbench {
  readonly cache: Pick<GenerationalCache, 'statistics'>;
  readonly workflows: WorkflowCache;
  readonly oracle: Oracle;
  /** The scopes that the relay has bumped so far. */
  readonly bumps: () => Bumps;
  /** The statements that loaders have sent so far. */
  readonly statements: () => number;
  /** The edits made so far. */
  readonly edits: () => number;
}

/** The least number of events, and of seconds, of a phase. */
export interface PhaseEnd {
  readonly events?: number;
  readonly seconds?: number;
}

/** The numbers of a phase. `reads`, `hits`, `sampled`, `excused` and `staleReads` count entries: two for each detector. */
export interface Phase {
  readonly events: number;
  readonly seconds: number;
  readonly reads: number;
  readonly hits: number;
  /** Of the hits: those whose value the process had. */
  readonly localHits: number;
  readonly bypasses: number;
  readonly queries: number;
  /** The queries by the cache's own statistics. */
  readonly queriesRun: number;
  readonly bumps: Bumps;
  readonly edits: number;
  readonly sampled: number;
  readonly excused: number;
  readonly staleReads: number;
  /** The durations of the calls, in microseconds. */
  readonly latencies: Histogram;
}

const PROGRESS_EVERY_MS = 100;

/**
 * Asks for the workflows of one event after another, and judges every answer. Rejects with the reason of `stop`, or with
 * the error of a call.
 */
export async function runPhase(
  workbench: Workbench,
  stream: Iterator<DetectorEvent, never>,
  end: PhaseEnd,
  stop: AbortSignal,
  progress: (done: number) => void = () => {},
): Promise<Phase> {
  const { events: eventsMin = 0, seconds: secondsMin = 0 } = end;
  const latencies = build({ highestTrackableValue: 600_000_000, numberOfSignificantValueDigits: 3 });
  const judged = { fresh: 0, excused: 0, stale: 0 };
  const before = totals(workbench);
  const startedAtMs = performance.now();
  let shownAtMs = startedAtMs;
  let nowMs = startedAtMs;
  let events = 0;
  while (events < eventsMin || nowMs < startedAtMs + secondsMin * 1_000) {
    // Real events arrive by I/O. Without a turn of the event loop, hits in memory would starve edits and signals.
    await turn();
    stop.throwIfAborted();
    const event = stream.next().value;
    const read = { startedAtMs: performance.now(), answeredAtMs: 0 };
    const lists = await workbench.workflows.getWorkflowsByDetectors(event.detectors, event.environment);
    nowMs = read.answeredAtMs = performance.now();
    latencies.recordValue(Math.round((read.answeredAtMs - read.startedAtMs) * 1_000));
    events++;
    judge(workbench.oracle, event, lists, read, judged);
    if (nowMs < shownAtMs + PROGRESS_EVERY_MS) continue;
    shownAtMs = nowMs;
    progress(Math.min(1, events / eventsMin, (nowMs - startedAtMs) / 1_000 / secondsMin));
  }
  return {
    events,
    seconds: (nowMs - startedAtMs) / 1_000,
    ...difference(totals(workbench), before),
    sampled: judged.fresh + judged.excused + judged.stale,
    excused: judged.excused,
    staleReads: judged.stale,
    latencies,
  };
}

/** A list is two entries: the workflows bound to the environment, then those bound to none. */
function judge(
  oracle: Oracle,
  { detectors, environment }: DetectorEvent,
  lists: readonly (readonly Workflow[])[],
  read: ReadSpan,
  judged: Record<ReturnType<Oracle['judge']>, number>,
): void {
  detectors.forEach((detector, i) => {
    const list = lists[i]!;
    const unbound = list.findIndex((workflow) => workflow.environmentId === null);
    const bound = unbound === -1 ? list.length : unbound;
    judged[oracle.judge(detector, environment, list.slice(0, bound), read)]++;
    judged[oracle.judge(detector, null, list.slice(bound), read)]++;
  });
}

type Totals = Pick<Phase, 'reads' | 'hits' | 'localHits' | 'bypasses' | 'queries' | 'queriesRun' | 'bumps' | 'edits'>;

function totals({ cache: { statistics }, bumps, statements, edits }: Workbench): Totals {
  const hits = statistics.total('hits') + statistics.total('absent_hits');
  const bypasses = statistics.total('bypasses');
  return {
    reads: hits + statistics.total('misses') + bypasses,
    hits,
    localHits: statistics.total('local_hits'),
    bypasses,
    queries: statements(),
    queriesRun: statistics.total('queries_run'),
    bumps: bumps(),
    edits: edits(),
  };
}

function difference(after: Totals, before: Totals): Totals {
  return {
    reads: after.reads - before.reads,
    hits: after.hits - before.hits,
    localHits: after.localHits - before.localHits,
    bypasses: after.bypasses - before.bypasses,
    queries: after.queries - before.queries,
    queriesRun: after.queriesRun - before.queriesRun,
    bumps: {
      global: after.bumps.global - before.bumps.global,
      detector: after.bumps.detector - before.bumps.detector,
      environment: after.bumps.environment - before.bumps.environment,
    },
    edits: after.edits - before.edits,
  };
}
