/** When the clocks are read for answers without a round trip. */
import { expect } from 'chai';
import { Steps } from '../../lib/model/tracked-scope.js';
import { ScopeRegistry } from '../../lib/model/scope-registry.js';
import { Watch } from '../../lib/model/watch.js';
import { LocalEntry } from '../../lib/read/local-tier.js';
import { LocalReads } from '../../lib/read/local-reader.js';
import { StoreClock } from '../../lib/read/store-clock.js';
import { Emitter } from '../../lib/telemetry/emitter.js';

const FAR = { freshUntilMs: Number.MAX_SAFE_INTEGER, loadMs: 0 };

function setUp() {
  let nowMs = 1_000_000;
  let readings = 0;
  const clocks = { monotonicMs: () => nowMs, wallMs: () => (readings++, nowMs) };
  const watch = new Watch(clocks);
  watch.extend({ monotonicMs: nowMs, wallMs: nowMs }, 500);
  const storeClock = new StoreClock({} as never, { nowMs: () => nowMs });
  storeClock.note(Date.now(), nowMs);
  const reads = new LocalReads({
    ...{ clock: { nowMs: () => nowMs }, isOwnClock: true, storeClocks: [storeClock], steps: new Steps() },
    ...{ telemetry: new Emitter(), unbumped: { size: 0, includes: () => false }, registration: undefined },
    ...{ tier: {} as never, lookup: {} as never, verifier: undefined, refresh: () => {} },
  });
  const entry = new LocalEntry('key' as never, FAR, {} as never);
  entry.watch = watch;
  entry.untilTick = 2 ** 30;
  const scope = new ScopeRegistry(['prefix'], 1).root;
  return {
    ask: () => reads.isInTime(entry, scope),
    pass: (ms: number) => (nowMs += ms),
    readings: () => readings,
  };
}

describe('answers without a round trip', () => {
  it('read the clock once for 16 answers of one synchronous run', () => {
    const { ask, readings } = setUp();
    for (let answer = 0; answer < 1 + 2 * 16; answer++) expect(ask()).to.equal(true);
    expect(readings()).to.equal(3);
  });

  it('read it for the first answer after any other work: a process that was stopped answers nothing old', async () => {
    const { ask, pass } = setUp();
    for (let answer = 0; answer < 5; answer++) expect(ask()).to.equal(true);
    await Promise.resolve();
    pass(500);
    expect(ask()).to.equal(false);
  });

  it('end within 16 answers of a run that takes longer than the heartbeat', () => {
    const { ask, pass } = setUp();
    for (let answer = 0; answer < 5; answer++) ask();
    pass(500);
    const answers = Array.from({ length: 16 }, ask);
    expect(answers.at(-1)).to.equal(false);
  });
});
