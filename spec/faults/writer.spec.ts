/**
 * kill -9 of a writer between every pair of its steps: `transaction`, plain and strict.
 *
 * A relay is at work all the time. Before COMMIT nothing is bumped and nothing is committed; after it the change is
 * committed, and the writer or the relay bumps it.
 */
import { expect } from 'chai';
import { generationState } from '../../lib/model/generation.js';
import { eventually } from '../support/deferred.js';
import { lendServers, Scene, type Servers, type WatchedRelay } from './scene.js';
import { PLAIN, type Step, STRICT } from './steps.js';

const ITEM = 1;

describe('a writer that is killed', () => {
  let servers: Servers;
  let scene: Scene;
  let relay: WatchedRelay;

  before(async () => {
    servers = await lendServers();
  });

  beforeEach(async () => {
    scene = await Scene.open(servers);
    relay = scene.relay();
    scene.reader();
    scene.reader({ bounded: false });
  });

  for (const [kind, steps] of Object.entries({ plain: PLAIN, strict: STRICT })) {
    const strict = kind === 'strict';
    const names = Object.keys(steps);
    for (const [name, step] of Object.entries<Step>(steps)) {
      const committed = names.indexOf(name) > names.indexOf('COMMIT');
      it(`${kind}, before ${name}: ${committed ? 'the change is committed and bumped' : 'nothing has changed'}`, async () => {
        const writer = await scene.program();
        const begin = writer.stopAt(PLAIN.BEGIN);
        const stop = step === PLAIN.BEGIN ? begin : writer.stopAt(step);
        const change = scene.runWriter(writer, ITEM, { strict });
        await scene.settled(relay);
        if (stop !== begin) begin.release();
        await stop.reached;
        if (!committed) await nothingBumped(strict && name === 'COMMIT');
        await writer.kill();
        const version = committed ? change.version : 0;
        await eventually(() => expect(scene.history.seen(ITEM)).to.equal(version));
        expect((await scene.versions()).get(ITEM)).to.equal(version);
        // A dead writer's quarantine stands until it lapses: readers of this item may bypass the cache until then.
        await scene.verify(relay, { strict, hit: !strict });
      });
    }

    it(`${kind}, after its last step: the change is committed and bumped`, async () => {
      const writer = await scene.program();
      const begin = writer.stopAt(PLAIN.BEGIN);
      const change = scene.runWriter(writer, ITEM, { strict });
      await scene.settled(relay);
      begin.release();
      expect(await writer.line()).to.deep.equal({ bump: 'done', ...(strict ? { strict: 'kept' } : {}) });
      await writer.kill();
      expect((await scene.versions()).get(ITEM)).to.equal(change.version);
      await scene.verify(relay, { strict });
    });
  }

  it('beside a second strict writer of one scope: one commits, PostgreSQL ends the other, and no old value comes back', async () => {
    const [first, second] = [await scene.program(), await scene.program()];
    const stops = [first.stopAt(STRICT.COMMIT), second.stopAt(STRICT.COMMIT)];
    await scene.settled(relay);
    const change = scene.runWriter(first, ITEM, { strict: true });
    scene.runWriter(second, 2, { strict: true, bumps: [ITEM, 2] });
    await Promise.all(stops.map((stop) => stop.reached));
    stops[0]!.release();
    expect(await first.line()).to.deep.equal({ bump: 'done', strict: 'kept' });
    change.committedMs = performance.now();
    // The other's token still stands.
    expect(generationState((await scene.values(ITEM))[1]!)).to.equal('quarantined');
    await scene.endSessions();
    stops[1]!.release();
    expect(await second.line<{ message: string }>()).to.have.property('message');
    await scene.verify(relay, { strict: true });
    expect(await scene.versions()).to.deep.equal(new Map([[ITEM, change.version], [2, 0]])); // prettier-ignore
  });

  /** The generations are as before; or, right before a strict COMMIT, under quarantine. */
  async function nothingBumped(quarantined: boolean): Promise<void> {
    const { before } = scene.history.changes.at(-1)!;
    const [global, own] = await scene.values(ITEM);
    if (quarantined) expect(generationState(own!)).to.equal('quarantined');
    for (const [globalBefore, ownBefore] of before) {
      expect(global).to.equal(globalBefore);
      if (!quarantined) expect(own).to.equal(ownBefore);
    }
  }
});
