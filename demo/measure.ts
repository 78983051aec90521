import { GenerationalCache, type LocalOptions } from '../lib/index.js';
import { knexSource, startRelay } from '../lib/knex/index.js';
import { bypassStore } from '../lib/testing/index.js';
import { WorkflowCache } from '../lib/workflow-engine/index.js';
import { Editor } from './editor.js';
import { Edits } from './edits.js';
import { load } from './load.js';
import { recordChanges } from './migrations.js';
import { Oracle } from './oracle.js';
import { type PhaseEnd, runPhase, type Workbench } from './phase.js';
import type { DemoPostgres } from './postgres.js';
import { withProgress } from './progress.js';
import type { DemoRedis } from './redis.js';
import { countBumps } from './bumps.js';
import type { Measured } from './report.js';
import { eventStream, streamFrom } from './stream.js';
import { Tables } from './tables.js';
import { FULL_SIZE, makeWorld, type Size } from './world.js';

const SEED = { world: 1, events: 2, edits: 3 };
const EDITS_PER_SECOND = 5;
/** The migration comes in the middle of the warm-up, since it makes every entry cold again. */
const MIGRATE_AFTER_SECONDS = 5;

/** Room for all entries that are read. */
const LOCAL_ENTRIES = 100_000;
/** The default of `heartbeatMs`. */
const HEARTBEAT_MS = 1_000;

/** How much there is of everything. */
export interface Scale {
  readonly size: Size;
  /** The least number of events, and the least duration, of the cold phase, which is the warm-up. */
  readonly warmUp: PhaseEnd;
  readonly replayedEvents: number;
}

const FULL: Scale = { size: FULL_SIZE, warmUp: { events: 40_000, seconds: 20 }, replayedEvents: 2_000 };

export interface Plan {
  /** The name of the cache. */
  readonly name: string;
  /** Duration of the warm phase. */
  readonly seconds: number;
  /** Whether to show a progress bar. */
  readonly progress: boolean;
  /** The mode of the local tier, if there is to be one. */
  readonly local?: 'verify' | 'track' | undefined;
  /** In full by default. */
  readonly scale?: Scale;
}

/**
 * Fills the tables, installs triggers and starts a relay. Then it runs the cold phase, with a migration in its middle, and
 * the warm phase, both against the edits; then the first events of both phases again with the cache off.
 */
export async function measure(
  { reads, edits: db }: DemoPostgres,
  { store, relayStore }: DemoRedis,
  { name, seconds, progress, local: mode, scale: { size, warmUp, replayedEvents } = FULL }: Plan,
  stop: AbortController,
): Promise<{ readonly cold: Measured; readonly warm: Measured }> {
  const world = makeWorld(size, SEED.world);
  await withProgress('filling the tables', (show) => load(db, world, stop.signal, show), progress);
  await recordChanges(db, name);

  let statements = 0;
  // Of loaders: the cache also publishes its namespaces, once an hour.
  reads.on('query', ({ sql }: { sql: string }) => /gencache_(?:declaration|layout)/.test(sql) || statements++);
  const oracle = new Oracle(new Tables(world), mode === 'track' ? HEARTBEAT_MS : 0);
  const local: LocalOptions | undefined = mode && { mode, maxEntries: LOCAL_ENTRIES };
  const cache = new GenerationalCache({ name, store, source: knexSource(reads), ...(local && { local }) });
  const off = new GenerationalCache({ name: `${name}_off`, store: bypassStore(), source: knexSource(reads) });
  const workflows = new WorkflowCache(cache);
  const relay = startRelay({ cache: name, db, store: relayStore });
  const editor = new Editor(db, name, oracle);
  const counters = { oracle, bumps: countBumps(relay), statements: () => statements, edits: () => editor.edits };
  const workbench: Workbench = { cache, workflows, ...counters };
  const workbenchOff: Workbench = { cache: off, workflows: new WorkflowCache(off), ...counters };
  const run = (label: string, on: Workbench, stream: ReturnType<typeof eventStream>, end: PhaseEnd) =>
    withProgress(label, (show) => runPhase(on, stream, end, stop.signal, show), progress);

  const edits = new Edits(oracle.tables, size, SEED.edits);
  const enough = new AbortController();
  let migrateAtMs = performance.now() + MIGRATE_AFTER_SECONDS * 1_000;
  const next = () => {
    if (performance.now() < migrateAtMs) return editor.carryOut(edits.next());
    migrateAtMs = Infinity;
    return editor.migrate();
  };
  const editing = editor
    .keepEditing(EDITS_PER_SECOND, next, AbortSignal.any([enough.signal, stop.signal]))
    .catch((error: unknown) => stop.abort(error));
  try {
    const stream = eventStream(size, SEED.events);
    const cold = await run('the cold phase', workbench, stream, warmUp);
    const warm = await run('the warm phase', workbench, stream, { seconds });
    enough.abort();
    await editing;

    const replay = (from: number) =>
      run('again, the cache off', workbenchOff, streamFrom(from, size, SEED.events), { events: replayedEvents });
    return {
      cold: { phase: cold, replay: await replay(0) },
      warm: { phase: warm, replay: await replay(cold.events) },
    };
  } finally {
    enough.abort();
    await editing;
    await relay.stop();
    await cache.close();
    await off.close();
  }
}
