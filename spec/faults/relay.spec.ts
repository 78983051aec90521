/**
 * kill -9 and SIGSTOP of a relay between every pair of its steps, and PostgreSQL ending its session there.
 *
 * Readers with a bound may leave the cache meanwhile, and never read what is older; whatever the relay had done of its
 * turn, it, or another one, bumps what was committed.
 */
import type { Stop } from './gate.js';
import { lendServers, Scene, type Servers, type WatchedRelay } from './scene.js';
import type { GatedProgram } from './program.js';
import { RELAY, type Step } from './steps.js';
import type { Reader } from './reader.js';

const ITEM = 1;
const STEPS = Object.entries<Step>(RELAY);
/** Before these it has claimed nothing. */
const CHECKING: ReadonlySet<Step> = new Set([RELAY['asking for the time'], RELAY['the check'], RELAY['the renewal']]);
const CLAIMED: ReadonlySet<Step> = new Set([RELAY['the bump'], RELAY['asking who counts'], RELAY.COMMIT]);

describe('a relay', () => {
  let servers: Servers;
  let scene: Scene;
  let program: GatedProgram;
  let relay: WatchedRelay;
  let bounded: Reader;

  before(async () => {
    servers = await lendServers();
  });

  /** A relay that is a process, and readers of what it bumps. */
  async function open(): Promise<void> {
    ({ scene, program, relay, bounded } = await Scene.relayed(servers));
  }

  /** The relay waits before this step; an item was changed, at the worst moment for it. */
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
      it(`before ${name}: the next one bumps what it left`, async () => {
        await stopAt(step);
        await program.kill();
        await scene.change(2);
        await scene.verify(scene.relay());
      });
    }
  });

  describe('that is stopped', () => {
    // It lives through all of these.
    before(open);

    for (const [name, step] of STEPS) {
      it(`before ${name}: readers leave, and return when it is continued`, async () => {
        const stop = await stopAt(step);
        program.suspend();
        await scene.change(2);
        await bounded.away();
        // Whatever it does late, what it knew when it was stopped is no longer vouched for.
        const bump = program.stopAt(RELAY['the bump']);
        program.resume();
        stop.release();
        if (!CLAIMED.has(step)) await bump.reached;
        await bounded.goesOn();
        bump.release();
        await scene.verify(relay);
      });

      it(`before ${name}, with another one at work`, async () => {
        const stop = await stopAt(step);
        program.suspend();
        const other = scene.relay();
        await scene.change(2);
        // What is claimed the other can't bump, so it can't vouch for it.
        if (CLAIMED.has(step)) await bounded.away();
        else await scene.relayed(other);
        program.resume();
        stop.release();
        await scene.verify(other);
        await scene.verify(relay);
      });
    }

    for (const [name, step] of STEPS.filter(([, step]) => CLAIMED.has(step))) {
      it(`before ${name}, where PostgreSQL ends its session: another one bumps what it had claimed`, async () => {
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
