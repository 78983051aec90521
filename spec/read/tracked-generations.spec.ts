import { expect } from 'chai';
import { formatGeneration } from '../../lib/model/generation.js';
import { ScopeRegistry } from '../../lib/model/scope-registry.js';
import type { Beat } from '../../lib/ports/store.js';
import { isVerified, TrackedGenerations } from '../../lib/read/tracked-generations.js';

const [OLD, NEW] = [formatGeneration(0, 'o'.repeat(16)), formatGeneration(1, 'n'.repeat(16))];
const HEARTBEAT_MS = 1_000;

/** Tracked generations of two scopes, one below the other, on clocks that the spec sets. */
function lendTracked({ scopesMax = 10, freshForMs }: { scopesMax?: number; freshForMs?: (beat: Beat) => number } = {}) {
  const now = { monotonicMs: 5_000, wallMs: 1_000_000 };
  const store: { incarnation: string | undefined } = { incarnation: 'server' };
  const tracked = new TrackedGenerations({
    ...{ store, heartbeatMs: HEARTBEAT_MS, refused: () => {} },
    ...(freshForMs && { freshForMs }),
    clocks: { monotonicMs: () => now.monotonicMs, wallMs: () => now.wallMs },
  });
  const registry = new ScopeRegistry(['gencache:{spec:0}:'], scopesMax);
  const scope = (id: number) => registry.remember(registry.root, 'item', id, `item=${id}`);
  const item = scope(1);
  const scopes = [registry.root, item];
  const read = (generation = OLD, of = scopes) => {
    const asked = tracked.ask(of);
    tracked.reply(
      asked,
      of,
      of.map(() => generation),
    );
  };
  const beat = () => tracked.beat({ sentAt: { ...now } });
  const pass = (ms: number, by: readonly (keyof typeof now)[] = ['monotonicMs', 'wallMs']) => {
    for (const clock of by) now[clock] += ms;
  };
  const holds = (generation = OLD, of = scopes) =>
    isVerified(
      of,
      of.map(() => generation),
    );
  tracked.reset('server');
  return { tracked, store, scopes, item, scope, read, beat, pass, holds };
}

describe('tracked generations', () => {
  it('are verified by a read and a beat, in any order, and for that generation alone', () => {
    for (const order of [
      ['read', 'beat'],
      ['beat', 'read'],
    ] as const) {
      const lent = lendTracked();
      lent[order[0]]();
      expect(lent.holds()).to.equal(false);
      lent[order[1]]();
      expect(lent.holds()).to.equal(true);
      expect(lent.holds(NEW)).to.equal(false);
    }
  });

  it('hold until one heartbeat after the last beat was sent, by whichever clock shows more', () => {
    for (const clocks of [['monotonicMs', 'wallMs'], ['monotonicMs'], ['wallMs']] as const) {
      const { read, beat, pass, holds } = lendTracked();
      read();
      beat();
      pass(HEARTBEAT_MS - 2, clocks);
      expect(holds()).to.equal(true);
      pass(2, clocks);
      // With a wall clock that stands still, the monotonic one counts by the thousandth call.
      for (let calls = 0; calls < 1_000; calls++) holds();
      expect(holds()).to.equal(false);
      beat();
      expect(holds()).to.equal(true);
    }
  });

  it('hold no longer when the wall clock is set back', () => {
    const { read, beat, pass, holds } = lendTracked();
    read();
    beat();
    pass(-3_600_000, ['wallMs']);
    expect(holds()).to.equal(true);
    pass(HEARTBEAT_MS, ['monotonicMs']);
    pass(1, ['wallMs']);
    expect(holds()).to.equal(false);
  });

  it('hold no longer than the store is known to be fresh, counted from the sending of the beat', () => {
    let freshMs = 300;
    const { tracked, read, pass, holds } = lendTracked({ freshForMs: () => freshMs });
    read();
    tracked.beat({ sentAt: { monotonicMs: 4_900, wallMs: 999_900 } });
    pass(198);
    expect(holds()).to.equal(true);
    pass(2);
    expect(holds()).to.equal(false);
    freshMs = 0;
    tracked.beat({ sentAt: { monotonicMs: 5_200, wallMs: 1_000_200 } });
    expect(holds()).to.equal(false);
  });

  it('are unverified by a push of one of their keys, until the next read', () => {
    const { tracked, item, read, beat, holds, scope } = lendTracked();
    const other = scope(2);
    read();
    beat();
    tracked.changed([other.generationKey]);
    expect(holds()).to.equal(true);
    tracked.changed([item.generationKey]);
    expect(holds()).to.equal(false);
    read(NEW);
    expect(holds(NEW)).to.equal(true);
  });

  it('take no reply that was under way at a push, an own bump or a reset', () => {
    const { tracked, scopes, item, beat, holds, read } = lendTracked();
    for (const step of [() => tracked.changed([item.generationKey]), () => tracked.reset('server')]) {
      const asked = tracked.ask(scopes);
      step();
      tracked.reply(asked, scopes, [OLD, OLD]);
      beat();
      expect(holds()).to.equal(false);
      read();
      expect(holds()).to.equal(true);
    }
  });

  it('take a missing generation, a quarantined and a foreign one for unverified', () => {
    for (const state of ['missing', 'quarantined', 'foreign'] as const) {
      const { tracked, scopes, beat, holds, read } = lendTracked();
      read();
      beat();
      tracked.reply(tracked.ask(scopes), scopes, [OLD, state]);
      expect(holds()).to.equal(false);
    }
  });

  it('take no reply of a server whose changes are not told', () => {
    const { tracked, store, scopes, read, beat, holds } = lendTracked();
    store.incarnation = 'another server';
    read();
    beat();
    expect(holds()).to.equal(false);

    const asked = tracked.ask(scopes);
    store.incarnation = 'server';
    tracked.reply(asked, scopes, [OLD, OLD]);
    expect(holds()).to.equal(false);

    tracked.reset(undefined);
    store.incarnation = undefined;
    read();
    expect(holds()).to.equal(false);
  });

  it('are gone at a reset, and an earlier watch stays ended whatever beats arrive', () => {
    const { tracked, read, beat, holds } = lendTracked();
    read();
    beat();
    tracked.reset('server');
    beat();
    expect(holds()).to.equal(false);
    read();
    expect(holds()).to.equal(true);
  });

  describe('of a scope that the registry forgets', () => {
    it('are unverified, and pushes have nothing left to find', () => {
      const { tracked, item, scope, read, beat, holds } = lendTracked({ scopesMax: 2 });
      read();
      beat();
      expect(tracked.size).to.equal(2);
      scope(2);
      scope(3);
      expect(item.tracked!.isForgotten).to.equal(true);
      expect(holds()).to.equal(false);
      expect(tracked.size).to.equal(1); // global
    });

    it('are verified again for the object that is asked for next, whichever has the key', () => {
      const { tracked, item, scope, read, beat, holds } = lendTracked({ scopesMax: 2 });
      beat();
      read(OLD, [item]);
      const again = scope(1); // as when a scope above it was forgotten: another object, the same key
      read(OLD, [again]);
      expect(again.tracked).to.equal(item.tracked);
      scope(2); // forgets `item`
      expect(holds(OLD, [again])).to.equal(false);
      read(OLD, [again]);
      expect(holds(OLD, [again])).to.equal(true);
      tracked.changed([again.generationKey]);
      expect(holds(OLD, [again])).to.equal(false);
    });

    it('take no reply from before a push that came while the scope was forgotten', () => {
      const { tracked, item, scope, beat, holds } = lendTracked({ scopesMax: 2 });
      beat();
      const again = scope(1);
      tracked.ask([item]);
      const asked = tracked.ask([again]);
      scope(2); // forgets `item`, and with it what `again` shares
      tracked.changed([again.generationKey]);
      tracked.ask([again]);
      tracked.reply(asked, [again], [OLD]);
      expect(holds(OLD, [again])).to.equal(false);
    });
  });
});
