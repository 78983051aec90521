import { expect } from 'chai';
import type { Knex } from 'knex';
import { Editor } from '../../demo/editor.js';
import type { Edit } from '../../demo/edits.js';
import { load } from '../../demo/load.js';
import { recordChanges } from '../../demo/migrations.js';
import { type Change, Oracle } from '../../demo/oracle.js';
import { type Phase, runPhase } from '../../demo/phase.js';
import type { DetectorEvent } from '../../demo/stream.js';
import { Tables } from '../../demo/tables.js';
import { environmentsOf, makeWorld } from '../../demo/world.js';
import type { Workflow } from '../../lib/workflow-engine/index.js';
import { eventually } from '../support/deferred.js';
import { lendDatabase } from '../support/postgres.js';
import { lendRelay } from '../support/relay.js';
import { lendWorkflowCache } from '../workflow-engine/support.js';

const SIZE = { detectors: 6, workflows: 20, environments: 2 };
const [ENVIRONMENT] = environmentsOf(1, SIZE);
const world = makeWorld(SIZE, 1);

describe("The demo's oracle", () => {
  let oracle: Oracle;
  let enabled: readonly Workflow[];
  const none: readonly Workflow[] = [];
  const disable = () =>
    oracle.committing([1], ({ detectors }) => detectors.set(1, { ...detectors.get(1)!, enabled: false }));
  const judge = (workflows: readonly Workflow[], startedAtMs: number, answeredAtMs = performance.now()) =>
    oracle.judge(1, ENVIRONMENT, workflows, { startedAtMs, answeredAtMs });
  /** Gives a change its instants, so that no two of them coincide. */
  const at = (change: Change, committedAtMs: number, bumpedAtMs = Infinity) =>
    Object.assign(change, { committedAtMs, bumpedAtMs });

  beforeEach(() => {
    oracle = new Oracle(new Tables(world));
    enabled = oracle.tables.entriesOf(1).get(ENVIRONMENT)!;
    expect(enabled).to.have.length(1);
  });

  it('judges an entry without edits by the first rows', () => {
    expect(judge(enabled, performance.now())).to.equal('fresh');
    expect(judge(none, performance.now())).to.equal('stale');
    expect(judge([{ ...enabled[0]!, name: 'another' }], performance.now())).to.equal('stale');
  });

  it('accepts both states between the sending of COMMIT and its answer', () => {
    disable();
    expect(judge(enabled, performance.now())).to.equal('fresh');
    expect(judge(none, performance.now())).to.equal('fresh');
  });

  it('accepts the old state from a read that began before the answer to COMMIT', () => {
    const sentAtMs = performance.now();
    at(disable(), sentAtMs + 10, sentAtMs + 20);
    expect(judge(enabled, sentAtMs + 9, sentAtMs + 1_000)).to.equal('fresh');
  });

  it('excuses the old state in a read that began before the bump had ended', () => {
    const sentAtMs = performance.now();
    at(disable(), sentAtMs + 10, sentAtMs + 20);
    expect(judge(enabled, sentAtMs + 11, sentAtMs + 1_000)).to.equal('excused');
    expect(judge(none, sentAtMs + 11, sentAtMs + 1_000)).to.equal('fresh');
  });

  it('calls the old state stale in a read that began after the bump', () => {
    const sentAtMs = performance.now();
    at(disable(), sentAtMs + 10, sentAtMs + 20);
    expect(judge(enabled, sentAtMs + 21, sentAtMs + 1_000)).to.equal('stale');
  });

  it('calls a state stale that was answered before its commit was sent', () => {
    const startedAtMs = performance.now() - 20;
    disable();
    expect(judge(none, startedAtMs, startedAtMs + 10)).to.equal('stale');
  });

  it('excuses each state by its own bump only', () => {
    const sentAtMs = performance.now();
    at(disable(), sentAtMs + 10, sentAtMs + 20);
    const renamed = { ...enabled[0]!, name: 'another' };
    oracle.committing([1], ({ detectors, workflows }) => {
      detectors.set(1, { ...detectors.get(1)!, enabled: true });
      workflows.set(renamed.id as number, { ...workflows.get(renamed.id as number)!, name: 'another' });
    });
    expect(judge(enabled, sentAtMs + 21)).to.equal('stale');
    expect(judge([renamed], sentAtMs + 21)).to.equal('fresh');
  });

  describe('in a phase on real servers', () => {
    let db: Knex;

    beforeEach(async () => {
      db = await lendDatabase();
      await load(db, world, new AbortController().signal);
    });

    /** Ten events of detector 1: each reads two entries, and the edits below change both. */
    function phase(reading: ReturnType<typeof lendWorkflowCache>): Promise<Phase> {
      const bumps = () => ({ global: 0, detector: 0, environment: 0 });
      const workbench = { ...reading, oracle, bumps, statements: () => 0, edits: () => 0 };
      return runPhase(workbench, eventsOf(1), { events: 10 }, new AbortController().signal);
    }

    const disableFirst: Edit = async (trx) => {
      await trx('detector').where({ id: 1 }).update({ enabled: false });
      return {
        detectors: [1],
        apply: ({ detectors }) => detectors.set(1, { ...detectors.get(1)!, enabled: false }),
      };
    };
    const unrecorded: Edit = async (trx) => {
      await trx.raw(`set local gencache.events = 'off'`);
      return disableFirst(trx);
    };

    it('finds no stale read when triggers record and a relay bumps', async () => {
      const reading = lendWorkflowCache(db);
      const { name } = reading.cache;
      await recordChanges(db, name);
      lendRelay({ db, cache: name });
      const editor = new Editor(db, name, oracle);
      // The relay begins with a bump of global; the relayed edit comes after it.
      await editor.carryOut(async (trx) => {
        await trx('detector').where({ id: 2 }).update({ type: 'cron' });
        return { detectors: [], apply: () => {} };
      });
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 0, excused: 0, hits: 18 });
      await editor.carryOut(disableFirst);
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 0, excused: 0, hits: 18 });
    });

    it('counts the stale reads after a change that was not recorded', async () => {
      const reading = lendWorkflowCache(db);
      await recordChanges(db, reading.cache.name);
      await db('gencache_outbox').delete();
      await phase(reading);
      await new Editor(db, reading.cache.name, oracle).carryOut(unrecorded);
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 20, excused: 0, hits: 20 });
    });

    it('counts the stale reads after a change that was recorded for another cache', async () => {
      const reading = lendWorkflowCache(db);
      await recordChanges(db, 'another');
      await phase(reading);
      await new Editor(db, reading.cache.name, oracle).carryOut(disableFirst);
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 20, excused: 0 });
    });

    it('counts reads as excused until the event of the change is relayed', async () => {
      const reading = lendWorkflowCache(db);
      const { name } = reading.cache;
      await recordChanges(db, name);
      await phase(reading);
      const edited = new Editor(db, name, oracle).carryOut(disableFirst);
      await eventually(async () =>
        expect(await db('gencache_outbox').where({ operation: 'UPDATE' })).to.have.length(1),
      );
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 0, excused: 20 });
      lendRelay({ db, cache: name });
      await edited;
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 0, excused: 0 });
    });
  });
});

function* eventsOf(detector: number): Generator<DetectorEvent, never> {
  for (;;) yield { detectors: [detector], environment: ENVIRONMENT };
}
