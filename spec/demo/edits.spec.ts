import { expect } from 'chai';
import { Editor } from '../../demo/editor.js';
import { Edits } from '../../demo/edits.js';
import { countBumps } from '../../demo/bumps.js';
import { load } from '../../demo/load.js';
import { recordChanges } from '../../demo/migrations.js';
import { Oracle } from '../../demo/oracle.js';
import { runPhase } from '../../demo/phase.js';
import { eventStream, streamFrom } from '../../demo/stream.js';
import { Tables } from '../../demo/tables.js';
import { environmentsOf, makeWorld } from '../../demo/world.js';
import { GenerationalCache } from '../../lib/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { bypassStore } from '../../lib/testing/index.js';
import { WorkflowCache } from '../../lib/workflow-engine/index.js';
import { lendDatabase } from '../support/postgres.js';
import { uniqueName } from '../support/redis.js';
import { lendRelay } from '../support/relay.js';
import { lendWorkflowCache } from '../workflow-engine/support.js';

const SIZE = { detectors: 12, workflows: 20, environments: 4 };
/** Enough for every kind of edit, and for two environments that are created, filled and deleted. */
const EDITS = 24;

describe("The demo's edits", () => {
  it('leave the same rows in the database and in memory, and no stale entry in the cache, a migration included', async () => {
    const db = await lendDatabase();
    const world = makeWorld(SIZE, 1);
    const never = new AbortController().signal;
    await load(db, world, never);
    const oracle = new Oracle(new Tables(world));
    const cached = lendWorkflowCache(db);
    const off = new GenerationalCache({ name: uniqueName(), store: bypassStore(), source: knexSource(db) });
    await recordChanges(db, cached.cache.name);
    const bumps = countBumps(lendRelay({ db, cache: cached.cache.name }));
    const counters = { oracle, bumps, statements: () => 0, edits: () => 0 };
    const workbenches = [
      { ...cached, ...counters },
      { cache: off, workflows: new WorkflowCache(off), ...counters },
    ];
    const editor = new Editor(db, cached.cache.name, oracle);
    const edits = new Edits(oracle.tables, SIZE, 1);

    for (let edit = 0; edit < EDITS; edit++) {
      await (edit === EDITS / 2 ? editor.migrate() : editor.carryOut(edits.next()));
      for (const workbench of workbenches) {
        // Every entry: each detector in both of its environments.
        const judged = await runPhase(workbench, everything(), { events: 2 * SIZE.detectors }, never);
        expect(judged).to.include({ sampled: 4 * SIZE.detectors, staleReads: 0, excused: 0 }, `after edit ${edit}`);
      }
    }
    expect(editor.edits).to.equal(EDITS);
    expect(bumps().global, 'the migration').to.be.above(0);
    expect(bumps().detector).to.be.above(0);
    expect(bumps().environment).to.be.above(0);
    expect(cached.cache.statistics.total('bumps'), 'by hand').to.equal(0);
    for (const [table, rows] of Object.entries({ detector: 12, environment: 4, workflow: 20, detector_workflow: 36 })) {
      const [{ count }] = (await db(table).count()) as [{ count: string }];
      expect(Number(count), `rows of ${table}`).to.be.within(rows - 2, rows + 2);
    }
    await off.close();
  });
});

describe("The demo's stream", () => {
  it('is the same for the same seed, from any event', () => {
    const stream = eventStream(SIZE, 7);
    const events = Array.from({ length: 50 }, () => stream.next().value);
    const again = streamFrom(20, SIZE, 7);
    expect(Array.from({ length: 30 }, () => again.next().value)).to.deep.equal(events.slice(20));
  });

  it('has events of one to three different detectors that share the environment', () => {
    const stream = eventStream(SIZE, 7);
    const lengths = new Set<number>();
    for (let i = 0; i < 1_000; i++) {
      const { detectors, environment } = stream.next().value;
      lengths.add(detectors.length);
      expect(new Set(detectors).size).to.equal(detectors.length);
      for (const detector of detectors) expect(environmentsOf(detector, SIZE)).to.include(environment);
    }
    expect([...lengths].sort()).to.deep.equal([1, 2, 3]);
  });

  it('gives every detector two environments', () => {
    for (let detector = 1; detector <= SIZE.detectors; detector++) {
      expect(new Set(environmentsOf(detector, SIZE)).size).to.equal(2);
    }
  });
});

function* everything(): Generator<{ detectors: number[]; environment: number }, never> {
  for (;;) {
    for (let detector = 1; detector <= SIZE.detectors; detector++) {
      for (const environment of environmentsOf(detector, SIZE)) yield { detectors: [detector], environment };
    }
  }
}
