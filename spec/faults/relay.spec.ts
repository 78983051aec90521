/**
 * kill -9 and SIGSTOP of a relay between every pair of its steps, and PostgreSQL ending its session there.
 *
 * Bounded readers may leave the cache meanwhile, and never read a value older than the bound. However far the relay has
 * got, it or another relay bumps the commit.
 */
import type { Stop } from './gate.js';
import { lendServers, Scene, type Servers, type WatchedRelay } from './scene.js';
import type { GatedProgram } from './program.js';
import { RELAY, type Step } from './steps.js';
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
});
