/** When the store was last known to have a generation, on clocks that the spec sets (docs/protocol.md, rule 14c). */
import { expect } from 'chai';
import type { Moment } from '../../lib/async/moment.js';
import { formatGeneration, type GenerationState } from '../../lib/model/generation.js';
import type { FreshnessKey, GenerationKey } from '../../lib/model/key.js';
import { ScopeRegistry } from '../../lib/model/scope-registry.js';
import type { KnownFresh } from '../../lib/model/sighting.js';
import { Steps } from '../../lib/model/tracked-scope.js';
import type { Partition } from '../../lib/ports/partitions.js';
import type { FreshnessReading } from '../../lib/ports/store.js';
import { Sightings } from '../../lib/read/sightings.js';
import { TrackedGenerations } from '../../lib/read/tracked-generations.js';
import { deferred } from '../support/deferred.js';

const [OLD, NEW] = [formatGeneration(0, 'o'.repeat(16)), formatGeneration(1, 'n'.repeat(16))];
const BOUND_MS = 8_000;

interface LendOptions {
  readonly tracks?: boolean;
  readonly bounded?: boolean;
}

/** Sightings of the global scope and one below it. */
function lendSightings({ tracks = false, bounded = false }: LendOptions = {}) {
  const now = { monotonicMs: 5_000, wallMs: 1_000_000 };
  const clocks = { monotonicMs: () => now.monotonicMs, wallMs: () => now.wallMs };
  const prefix = 'gencache:{spec:0}:';
  const asked: { reading: ReturnType<typeof deferred<FreshnessReading>> }[] = [];
  const store = {
    incarnation: 'server',
    freshness: () => {
      const reading = deferred<FreshnessReading>();
      asked.push({ reading });
      return reading.promise;
    },
  };
  const partition = { index: 0, name: '0', prefix, store: store as never } as Partition;
  const freshness = {
    key: 'f' as FreshnessKey,
    known: undefined as KnownFresh | undefined,
    freshForMs: ({ ttlMs }: FreshnessReading, _sentAtMs: number, since: Moment) => (
      (freshness.known = { since, forMs: ttlMs }),
      ttlMs
    ),
  };
  const steps = new Steps();
  const tracked = new TrackedGenerations({
    ...{ store, heartbeatMs: 1_000, refused: () => {}, clocks, steps },
    ...(bounded && { freshForMs: () => 3_000 }),
  });
  tracked.reset('server');
  if (tracks) partition.changed = (keys) => tracked.changed(keys);
  const trackers = {
    steps,
    ask: (scopes: Parameters<TrackedGenerations['ask']>[0]) => {
      const step = tracked.ask(scopes);
      return (states: readonly GenerationState[]) => tracked.reply(step, scopes, states);
    },
  };
  const sightings = new Sightings({
    ...{ partitions: [partition], clock: { nowMs: clocks.monotonicMs }, clocks, deadlineMs: 60_000, track: () => {} },
    ...{ trackers: tracks ? trackers : undefined },
    ...(bounded ? { freshness: [freshness], boundMs: BOUND_MS } : { freshness: undefined, boundMs: undefined }),
  });
  const registry = new ScopeRegistry([prefix], 10);
  const item = registry.remember(registry.root, 'item', 1, 'item=1');
  const scopes = [registry.root, item];
  const ask = () => {
    const take = sightings.ask(scopes);
    return (state: GenerationState = OLD) => take([OLD, state]);
  };
  return {
    ...{ now, item, tracked, asked, ask, freshness },
    read: (state?: GenerationState) => ask()(state),
    change: (...keys: string[]) => partition.changed!(keys as GenerationKey[]),
    pass(ms: number, by: readonly (keyof typeof now)[] = ['monotonicMs', 'wallMs']) {
      for (const clock of by) now[clock] += ms;
    },
    age: () => sightings.ageMs(item),
  };
}

describe('the last sighting of a generation', () => {
  it('is as old as its command, by whichever clock shows more', () => {
    for (const clocks of [['monotonicMs', 'wallMs'], ['monotonicMs'], ['wallMs']] as const) {
      const { ask, pass, age } = lendSightings();
      expect(age()).to.equal(Infinity);
      const reply = ask();
      pass(30);
      reply();
      expect(age()).to.equal(30);
      pass(7_000, clocks);
      expect(age()).to.equal(7_030);
    }
  });

  it('grows older under a wall clock that is set back', () => {
    const { read, pass, age } = lendSightings();
    read();
    pass(-3_600_000, ['wallMs']);
    pass(500, ['monotonicMs']);
    expect(age()).to.equal(500);
  });

  it('does not count after a reply without a generation, until a further reply shows one', () => {
    for (const state of ['missing', 'quarantined', 'foreign'] as const) {
      const { read, age, item } = lendSightings();
      read();
      read(state);
      expect(age(), state).to.equal(Infinity);
      read(NEW);
      expect([age(), item.sighted]).to.deep.equal([0, NEW]);
    }
  });

  it('is that of the last command, whichever reply came last', () => {
    const { ask, item, pass, age } = lendSightings();
    const first = ask();
    pass(10);
    const second = ask();
    second(NEW);
    first(OLD);
    expect([item.sighted, age()]).to.deep.equal([NEW, 0]);
  });

  it('does not count after a change by this process, until a command that was sent after its end', () => {
    const { read, ask, change, item, age } = lendSightings();
    read();
    const late = ask();
    change(item.generationKey);
    expect(age()).to.equal(Infinity);
    late(); // sent before the change ended
    expect(age()).to.equal(Infinity);
    read(NEW);
    expect(age()).to.equal(0);
  });

  it('does not count after ten thousand further changes', () => {
    const { read, change, age, item } = lendSightings();
    read();
    const keys = Array.from({ length: 10_000 }, (_, i) => `g:other=${i}`);
    change(...keys);
    expect(age()).to.equal(0);
    change('g:one=more', item.generationKey);
    expect(age()).to.equal(Infinity);
    read();
    expect(age()).to.equal(0);
    change('g:again=1');
    change('g:again=2'); // forgets changes that all came before the read
    expect(age()).to.equal(0);
  });

  describe('of a generation that is tracked', () => {
    it('is its last beat, whether the connection was lost since or not', () => {
      const { read, pass, tracked, now, age } = lendSightings({ tracks: true });
      read();
      pass(400);
      tracked.beat({ sentAt: { ...now } });
      pass(250);
      expect(age()).to.equal(250);
      tracked.reset(undefined);
      pass(5_000);
      expect(age()).to.equal(5_250);
      tracked.reset('server'); // on the next connection
      expect(age()).to.equal(5_250);
    });

    it('does not count after a push of it, nor after a flush', () => {
      for (const event of ['push', 'flush'] as const) {
        const { read, tracked, now, age, item } = lendSightings({ tracks: true });
        read();
        tracked.beat({ sentAt: { ...now } });
        if (event === 'push') tracked.changed([item.generationKey]);
        else tracked.reset('server');
        expect(age(), event).to.equal(Infinity);
        read(NEW);
        expect(age(), event).to.equal(0);
      }
    });

    it('does not count after an own bump', () => {
      const { read, tracked, now, age, item, change } = lendSightings({ tracks: true });
      read();
      tracked.beat({ sentAt: { ...now } });
      change(item.generationKey);
      tracked.beat({ sentAt: { ...now } });
      expect(age()).to.equal(Infinity);
    });
  });

  describe('with a bound', () => {
    const tell = async (lent: ReturnType<typeof lendSightings>, ttlMs: number) => {
      lent.asked.at(-1)!.reading.resolve({ value: Buffer.alloc(0), ttlMs });
      await new Promise(setImmediate);
    };

    it('counts until the end of the freshness key that was told before its command was sent', async () => {
      const lent = lendSightings({ bounded: true });
      const { read, ask, pass, age } = lent;
      read(); // asks for the TTL
      pass(10);
      const early = ask();
      await tell(lent, 5_000);
      early();
      expect(age()).to.equal(Infinity);
      read();
      expect(age()).to.equal(0);
      pass(4_988); // 4,998 since the request was sent
      expect(age()).to.equal(4_988);
      pass(1);
      expect(age()).to.equal(Infinity);
    });

    it('counts until that end, though a later request told a later one', async () => {
      const lent = lendSightings({ bounded: true });
      const { read, ask, pass, age } = lent;
      read();
      await tell(lent, 2_000);
      pass(1_500);
      const reply = ask(); // and asks for the TTL again
      expect(lent.asked).to.have.length(2);
      await tell(lent, BOUND_MS);
      reply();
      expect(age()).to.equal(0);
      pass(500);
      expect(age()).to.equal(Infinity);
      read();
      expect(age()).to.equal(0);
    });

    it('has the TTL asked for eight times in a bound at most, also where no reply comes', () => {
      const { read, pass, asked } = lendSightings({ bounded: true });
      for (let ms = 0; ms < BOUND_MS; ms += 100) {
        read();
        pass(100);
      }
      expect(asked.length).to.be.within(7, 8);
    });

    it('counts until the end that its beat told', () => {
      const { read, pass, tracked, now, age } = lendSightings({ bounded: true, tracks: true });
      read();
      tracked.beat({ sentAt: { ...now } });
      tracked.reset(undefined);
      pass(2_998);
      expect(age()).to.equal(2_998);
      pass(1);
      expect(age()).to.equal(Infinity);
    });
  });
});
