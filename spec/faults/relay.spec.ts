/**
 * kill -9 and SIGSTOP of a relay between every pair of its steps, and PostgreSQL ending its session there.
 *
 * Bounded readers may leave the cache meanwhile, and never read a value older than the bound. However far the relay has
 * got, it or another relay bumps the commit.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { eventually } from '../support/deferred.js';
import type { Stop } from './gate.js';
import { lendServers, Scene, type Servers, type WatchedRelay } from './scene.js';
import type { GatedProgram } from './program.js';
import { RELAY, REPAIRING, type Step } from './steps.js';
import type { Reader } from './reader.js';

const ITEM = 1;
const STEPS = Object.entries<Step>(RELAY);
/** Steps before the claim. */
const CHECKING: ReadonlySet<Step> = new Set([RELAY['asking for the time'], RELAY['the check'], RELAY['the renewal']]);
const CLAIMED: ReadonlySet<Step> = new Set([RELAY['the bump'], RELAY['the authority check'], RELAY.COMMIT]);

describe('a relay', () => {
  let servers: Servers;
  let scene: Scene;
  let program: GatedProgram;
  let relay: WatchedRelay;
  let bounded: Reader;

  before(async () => {
    servers = await lendServers();
  });

  /** A relay in a process of its own, and readers. */
  async function open(): Promise<void> {
    ({ scene, program, relay, bounded } = await Scene.relayed(servers));
  }

  /** Stops the relay before this step, with an item changed at the worst moment for that step. */
  async function stopAt(step: Step): Promise<Stop> {
    const stop = program.stopAt(step);
    if (CHECKING.has(step)) await stop.reached;
    await scene.change(ITEM);
    await stop.reached;
    return stop;
  }

  describe('that is killed', () => {
    beforeEach(open);

    for (const [name, step] of STEPS) {
      it(`before ${name}: the next relay bumps the event`, async () => {
        await stopAt(step);
        await program.kill();
        await scene.change(2);
        await scene.verify(scene.relay());
      });
    }
  });

  describe('that is stopped', () => {
    // One relay lives through all of these specs.
    before(open);

    for (const [name, step] of STEPS) {
      it(`before ${name}: bounded readers leave the cache, and return when the relay continues`, async () => {
        const stop = await stopAt(step);
        program.suspend();
        await scene.change(2);
        await bounded.away();
        // The late relay keeps nothing fresh by what it knew before the stop.
        const bump = program.stopAt(RELAY['the bump']);
        program.resume();
        stop.release();
        if (!CLAIMED.has(step)) await bump.reached;
        await bounded.goesOn();
        bump.release();
        await scene.verify(relay);
      });

      it(`before ${name}: another relay at work keeps its promise, and so does the late one`, async () => {
        const stop = await stopAt(step);
        program.suspend();
        const other = scene.relay();
        await scene.change(2);
        // The other relay can't bump a claimed event, so it keeps nothing fresh meanwhile.
        if (CLAIMED.has(step)) await bounded.away();
        else await scene.relayed(other);
        program.resume();
        stop.release();
        await scene.verify(other);
        await scene.verify(relay);
      });
    }

    for (const [name, step] of STEPS.filter(([, step]) => CLAIMED.has(step))) {
      it(`before ${name}, and whose session PostgreSQL ends: another relay bumps the claimed event`, async () => {
        const stop = await stopAt(step);
        program.suspend();
        const other = scene.relay();
        await scene.endSessions();
        await scene.relayed(other);
        program.resume();
        stop.release();
        await scene.verify(other);
        await scene.verify(relay);
      });
    }
  });

  describe('that is stopped for twice the bound under load', () => {
    const BACKLOG_MAX_MS = 500;

    it('leaves bounded readers exact, others as old as the stop, and everything hits when it continues', async () => {
      const opened = await Scene.relayed(servers, { backlogMaxMs: BACKLOG_MAX_MS });
      const { unbounded } = opened;
      ({ scene, program, relay, bounded } = opened);
      const { boundMs, history } = scene;
      const over = new AbortController();
      const load = (async () => {
        for (let i = 0; !over.signal.aborted; i++) {
          await scene.changeOften(scene.items[i % scene.items.length]!, 1);
          await sleep(10);
        }
      })();
      await eventually(() => expect(history.changes.length).to.be.above(20));
      await Promise.all([bounded.hitting(), unbounded.hitting()]);

      // Before a check: a relay that is stopped before a claim bumps all that waited in one batch, without a repair.
      const stop = program.stopAt(RELAY['asking for the time']);
      await stop.reached;
      const suspendedMs = performance.now();
      program.suspend();
      await bounded.away();
      const awayMs = performance.now() - suspendedMs;
      expect(awayMs).to.be.below(3 * boundMs);
      await sleep(Math.max(0, 2 * boundMs - awayMs));
      expect(await scene.waiting()).to.be.above(50);

      const resumedMs = performance.now();
      program.resume();
      stop.release();
      await eventually(() => expect(relay.repairs).to.deep.equal(['first', 'backlog']));
      const repairedMs = performance.now();
      await Promise.all([bounded.hitting(), unbounded.hitting()]);
      await sleep(boundMs / 2);
      over.abort();
      await load;

      const reads = [bounded, unbounded].map((reader) => reader.takeReads());
      history.judgeBound(reads[0]!, boundMs);
      // When the stop began, the relay kept the bound.
      history.judgeBound(reads[1]!, boundMs + repairedMs - suspendedMs);
      const later = reads[1]!.filter(({ beganMs }) => beganMs >= repairedMs);
      expect(later.length).to.be.above(20);
      for (const read of later) history.judgeBound([read], read.beganMs - resumedMs);
      for (const each of reads) {
        const during = each.filter(({ beganMs }) => beganMs > suspendedMs && beganMs < resumedMs);
        expect(during.length, 'reads during the stop').to.be.above(50);
        expect(
          Math.max(...each.map(({ beganMs, answeredMs }) => answeredMs - beganMs)),
          'the longest read',
        ).to.be.below(3 * boundMs);
      }
      await scene.verify(relay);
      expect(relay.repairs).to.deep.equal(['first', 'backlog']);
    });
  });

  describe('that finds an old backlog', () => {
    /** The outbox of a relay that was killed, with old events. Resolves when the next relay is stopped before this step. */
    async function stopNextAt(step: Step): Promise<Stop> {
      await open();
      await program.kill();
      await scene.changeAll();
      await scene.ageEvents();
      program = await scene.program();
      const stop = program.stopAt(step);
      relay = scene.runRelay(program);
      await stop.reached;
      return stop;
    }

    for (const [name, step] of Object.entries<Step>(REPAIRING)) {
      const cause = step === REPAIRING['the repair'] ? 'mark' : 'backlog';

      it(`and is killed before ${name}: the next relay repairs`, async () => {
        await stopNextAt(step);
        expect(await scene.waiting()).to.equal(scene.items.length);
        await program.kill();
        const other = scene.relay();
        await scene.verify(other);
        expect(other.repairs).to.deep.equal([cause]);
      });

      it(`and is stopped before ${name}: another relay repairs and relays, and the late one repairs no backlog after it`, async () => {
        const stop = await stopNextAt(step);
        program.suspend();
        const other = scene.relay();
        await scene.relayed(other);
        program.resume();
        stop.release();
        await scene.verify(other);
        await scene.verify(relay);
        expect(other.repairs).to.deep.equal([cause]);
        // A script that was under way repeats the repair of the same epoch.
        expect(relay.repairs).to.deep.equal(cause === 'mark' ? ['backlog'] : []);
      });
    }
  });
});
