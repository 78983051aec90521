import { expect } from 'chai';
import { StoreUnavailableError } from '../../lib/ports/store.js';
import { Breaker } from '../../lib/read/breaker.js';
import { Breakers } from '../../lib/read/breakers.js';
import { manualClock } from '../../lib/testing/index.js';

const RETRY_MS = 1_000;

describe('the breakers of several servers', () => {
  /** Breakers of partitions that these servers have, each of which opens at the first failure. */
  function breakersOf(...servers: (object | undefined)[]) {
    const clock = manualClock();
    const changes: boolean[] = [];
    const limits = { breakerFailures: 1, breakerRetryMs: RETRY_MS };
    const make = () => new Breaker({ clock, limits, changed: (isOpen) => changes.push(isOpen) });
    const partitions = servers.map((server) => ({ server }));
    return { breakers: new Breakers(partitions, make), partitions, clock, changes };
  }

  const [one, other] = [{}, {}];
  const failure = () => new StoreUnavailableError('It does not answer.', true);

  it('are shared by the partitions of a server, and by no others', () => {
    const { breakers } = breakersOf(one, other, one);
    breakers.of(0).failed(failure());
    expect([0, 1, 2].map((partition) => breakers.of(partition).admits())).to.deep.equal([false, true, false]);
  });

  it('are one where the store has one server', () => {
    const { breakers } = breakersOf(undefined, undefined);
    expect(breakers.of(0)).to.equal(breakers.of(1));
  });

  it('let a partition go on at once when another server has taken it', () => {
    const { breakers, partitions, changes } = breakersOf(one, one, other);
    for (const partition of [0, 1, 2]) breakers.of(partition);
    breakers.of(0).failed(failure());
    partitions[0]!.server = other;
    expect(breakers.of(0)).to.equal(breakers.of(2));
    expect(breakers.of(0).admits()).to.equal(true);
    expect(breakers.of(1).admits()).to.equal(false);
    expect(changes).to.deep.equal([true]);
    // The last partition of the server leaves it, so nothing fails any more.
    partitions[1]!.server = {};
    expect(breakers.of(1).admits()).to.equal(true);
    expect(changes).to.deep.equal([true, false]);
  });

  it('close with a server that is gone, also for a partition that is not read any more', () => {
    const { breakers, partitions, changes } = breakersOf(one, one);
    breakers.of(0).failed(failure());
    for (const partition of partitions) partition.server = other;
    expect(breakers.of(0).admits()).to.equal(true);
    expect(changes).to.deep.equal([true, false]);
    breakers.of(1).failed(failure());
    for (const partition of partitions) partition.server = one;
    breakers.retryNow();
    expect(changes).to.deep.equal([true, false, true, false]);
  });

  it('hear no more of a server that is gone when a call fails that was under way', () => {
    const { breakers, partitions, changes } = breakersOf(undefined);
    const before = breakers.of(0);
    partitions[0]!.server = one;
    const now = breakers.of(0);
    before.failed(failure());
    expect(changes).to.deep.equal([]);
    expect(now.admits()).to.equal(true);
  });

  it('take no probe for a lookup in two partitions of which one must not be asked yet', () => {
    const { breakers, clock } = breakersOf(one, other);
    breakers.of(0).failed(failure());
    clock.advance(RETRY_MS);
    breakers.of(1).failed(failure());
    expect(breakers.together([0, 1]).admits()).to.equal(false);
    expect(breakers.of(0).admits()).to.equal(true);
    clock.advance(RETRY_MS);
    expect(breakers.together([0, 1]).admits()).to.equal(true);
    expect([0, 1].map((partition) => breakers.of(partition).admits())).to.deep.equal([false, false]);
  });

  it('do not take a server that refuses keys at once, since it does not serve their slot, for one that fails', () => {
    const { breakers, changes } = breakersOf(one);
    const refusal = new StoreUnavailableError('The slot is being moved.', false, { answered: true });
    for (let i = 0; i < 5; i++) breakers.of(0).failed(refusal);
    expect(breakers.of(0).admits()).to.equal(true);
    breakers.of(0).failed(failure());
    breakers.of(0).failed(refusal);
    expect(changes).to.deep.equal([true, false]);
  });
});
