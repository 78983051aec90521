import { expect } from 'chai';
import type { Knex } from 'knex';
import { Editor } from '../../demo/editor.js';
import type { Edit } from '../../demo/edits.js';
import { load } from '../../demo/load.js';
import { type Change, Oracle } from '../../demo/oracle.js';
import { type Phase, runPhase } from '../../demo/phase.js';
import type { DetectorEvent } from '../../demo/stream.js';
import { Tables } from '../../demo/tables.js';
import { environmentsOf, makeWorld } from '../../demo/world.js';
import type { Workflow } from '../../lib/workflow-engine/index.js';
import { deferred } from '../support/deferred.js';
import { lendDatabase } from '../support/postgres.js';
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
  /** Instants of its own, so that no two of them fall together. */
  const at = (change: Change, committedAtMs: number, bumpedAtMs = Infinity) =>
    Object.assign(change, { committedAtMs, bumpedAtMs });

  beforeEach(() => {
    oracle = new Oracle(new Tables(world));
    enabled = oracle.tables.entriesOf(1).get(ENVIRONMENT)!;
    expect(enabled).to.have.length(1);
  });

  it('knows what nobody has edited', () => {
    expect(judge(enabled, performance.now())).to.equal('fresh');
    expect(judge(none, performance.now())).to.equal('stale');
    expect(judge([{ ...enabled[0]!, name: 'another' }], performance.now())).to.equal('stale');
  });

  it('takes either state while nobody can know whether the commit has happened', () => {
    disable();
    expect(judge(enabled, performance.now())).to.equal('fresh');
    expect(judge(none, performance.now())).to.equal('fresh');
  });

  it('takes the old state from a read that began before the commit was answered', () => {
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

  it('does not excuse one state by the bump of another: each has its own', () => {
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

    /** Ten events of detector 1: each reads two entries, of which an edit below changes both. */
    function phase(reading: ReturnType<typeof lendWorkflowCache>): Promise<Phase> {
      const stand = { ...reading, oracle, statements: () => 0, edits: () => 0 };
      return runPhase(stand, eventsOf(1), { events: 10 }, new AbortController().signal);
    }

    const disableFirst =
      (bump: (changed: () => Promise<void>) => Promise<void>): Edit =>
      async (trx) => {
        await trx('detector').where({ id: 1 }).update({ enabled: false });
        return {
          detectors: [1],
          apply: ({ detectors }) => detectors.set(1, { ...detectors.get(1)!, enabled: false }),
          bump: (changes) => bump(() => changes.detectorsChanged([1])),
        };
      };

    it('finds nothing where the bump follows the commit', async () => {
      const reading = lendWorkflowCache(db);
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 0, excused: 0, hits: 18 });
      await new Editor(db, reading.changes, oracle).carryOut(disableFirst((changed) => changed()));
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 0, excused: 0, hits: 18 });
    });

    it('counts the stale reads of a lost bump', async () => {
      const reading = lendWorkflowCache(db);
      await phase(reading);
      await new Editor(db, reading.changes, oracle).carryOut(disableFirst(async () => {}));
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 20, excused: 0, hits: 20 });
    });

    it('counts the stale reads where the bump went to another cache', async () => {
      const reading = lendWorkflowCache(db);
      await phase(reading);
      await new Editor(db, lendWorkflowCache(db).changes, oracle).carryOut(disableFirst((changed) => changed()));
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 20, excused: 0 });
    });

    it('counts apart what a bump under way excuses, and nothing once it has ended', async () => {
      const reading = lendWorkflowCache(db);
      await phase(reading);
      const committed = deferred();
      const bumping = deferred();
      const edited = new Editor(db, reading.changes, oracle).carryOut(
        disableFirst(async (changed) => {
          committed.resolve();
          await bumping.promise;
          await changed();
        }),
      );
      await committed.promise;
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 0, excused: 20 });
      bumping.resolve();
      await edited;
      expect(await phase(reading)).to.include({ sampled: 20, staleReads: 0, excused: 0 });
    });
  });
});

function* eventsOf(detector: number): Generator<DetectorEvent, never> {
  for (;;) yield { detectors: [detector], environment: ENVIRONMENT };
}
