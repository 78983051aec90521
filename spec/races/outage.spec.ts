/**
 * Every interleaving of the steps of lookups and of a bump in one process, whose local tier has a grace for outages: a command is
 * sent, carried out, and answered, or its connection is lost. **Invariant.** A read that begins after a bump by this process has
 * ended, successful or not, never returns a value from before its commit, whether the store answers or not.
 */
import { expect } from 'chai';
import { setImmediate } from 'node:timers/promises';
import { memoryStore, type Source, type Store } from '../../lib/index.js';
import { StoreUnavailableError } from '../../lib/ports/store.js';
import { bumpPaths } from '../../lib/write/bump-paths.js';
import { lendCache } from '../support/cache.js';
import { deferred, type Deferred } from '../support/deferred.js';
import { interleavings } from './interleavings.js';

/** What becomes of the bump's command: it is carried out and answered, or not answered, or lost on its way. */
const OUTCOMES = ['answered', 'unanswered', 'lost'] as const;

type Client = 'A' | 'B' | 'C' | 'O';

/** A command that waits to be carried out, and then to be answered. */
interface Held {
  readonly execute: Deferred<void>;
  readonly answer: Deferred<void>;
}

class World {
  readonly #lent;
  /** Takes the next command, which then waits for the steps of its client. */
  #hold: ((held: Held) => void) | undefined;
  #isDown = false;
  #outcome: (typeof OUTCOMES)[number] = 'answered';
  #item = 0;

  constructor() {
    const store = memoryStore();
    const stepwise = async <T>(execute: () => Promise<T>): Promise<T> => {
      if (this.#isDown) throw down();
      if (this.#hold === undefined) return execute();
      const held = { execute: deferred(), answer: deferred() };
      this.#hold(held);
      this.#hold = undefined;
      await held.execute.promise;
      // Carried out in this step, whatever the process learns of it.
      const executed = execute();
      await held.answer.promise;
      if (this.#isDown) throw down();
      return executed;
    };
    const read: Store['read'] = (...args) => stepwise(() => store.read(...args));
    const bump: Store['bump'] = async (...args) => {
      const outcome = this.#outcome;
      const bumped = await stepwise(() => (outcome === 'lost' ? Promise.resolve([]) : store.bump(...args)));
      if (outcome !== 'answered') throw down();
      return bumped;
    };
    // A transaction bumps paths, whose scopes the process need not remember.
    const outbox: NonNullable<Source<object, never>['outbox']> = {
      record: async () => {},
      transact: async (work, { cache, partitions, bumpDeadlineMs: deadlineMs, foreign: onForeign, bumped }) => {
        const value = await work(undefined as never);
        const paths = [`item=${this.#item}`];
        const bumping = bumpPaths({ partitions, cache, paths, deadlineMs, onForeign });
        const error = await bumping.then(
          () => undefined,
          (thrown: Error) => thrown,
        );
        bumped(paths, 'transaction', 0, error);
        return { value, bump: error === undefined ? 'done' : 'pending' };
      },
    };
    this.#lent = lendCache({
      source: { context: () => ({}), outbox },
      store: { ...store, read, bump },
      ...{ local: { mode: 'verify', maxEntries: 10, staleOnOutageMs: 600_000 } },
      ...{ breakerFailures: 0, breakerRetryMs: 3_600_000, bumpDeadlineMs: 60_000, leases: false },
    });
  }

  /** Takes the steps of a schedule, on an item of its own, and checks the invariant. Returns how many reads were stale. */
  async run(schedule: readonly Client[], outcome: (typeof OUTCOMES)[number]): Promise<number> {
    const { value, rows, cache } = this.#lent;
    const ids = { item: ++this.#item };
    this.#outcome = outcome;
    rows.set(ids.item, 0);
    for (let reads = 0; reads < 2; reads++) await value.fetch(ids);
    await cache.settled();
    /** The version of the last commit whose bump has ended. */
    let floor = 0;
    let stale = 0;
    const reads: Promise<void>[] = [];
    const read = () => {
      const least = floor;
      const reading = value.fetch(ids, { onStale: () => stale++ }).then((version) => {
        if (!((version as number) >= least))
          expect.fail(`${String(version)}, not ${least}: ${outcome} ${schedule.join('')}`);
      });
      reads.push(reading);
    };
    const ended: Promise<void>[] = [];
    const stepsOf = (begin: () => void) => {
      let command: Held | undefined;
      return [
        async () => {
          this.#hold = (held) => (command = held);
          begin();
          await setImmediate();
          // A read that bypasses the store sends none.
          this.#hold = undefined;
        },
        async () => command?.execute.resolve(),
        async () => command?.answer.resolve(),
      ];
    };
    const steps: Record<Client, (() => Promise<void>)[]> = {
      A: stepsOf(read),
      C: stepsOf(read),
      B: stepsOf(() => {
        const end = () => void (floor = 1);
        ended.push(cache.transaction(() => void rows.set(ids.item, 1)).then(end));
      }),
      O: [
        async () => {
          this.#isDown = true;
          read();
        },
      ],
    };
    for (const client of schedule) {
      await steps[client].shift()!();
      await setImmediate();
    }
    this.#isDown = true;
    await Promise.all(ended);
    read();
    await Promise.all(reads);
    await cache.settled();
    this.#isDown = false;
    return stale;
  }
}

function down(): StoreUnavailableError {
  return new StoreUnavailableError('The connection was lost.', true);
}

describe('a local tier with a grace, in every interleaving', () => {
  for (const outcome of OUTCOMES) {
    const all = async (steps: Partial<Record<Client, number>>) => {
      const world = new World();
      let count = 0;
      let stale = 0;
      for (const schedule of interleavings(steps as Record<Client, number>)) {
        stale += await world.run(schedule, outcome);
        count++;
      }
      // The outage was served at all.
      if (steps.O !== undefined) expect(stale).to.be.above(0);
      return count;
    };

    it(`of a lookup, a bump that is ${outcome}, and an outage`, async () => {
      expect(await all({ A: 3, B: 3, O: 1 })).to.equal(140);
    });

    it(`of two lookups and a bump that is ${outcome}, before an outage`, async () => {
      expect(await all({ A: 3, B: 3, C: 3 })).to.equal(1_680);
    });
  }
});
