/**
 * Every interleaving of the steps of readers (lookup, load, fill) and writers (commit, bump), in several processes on
 * one store. **Invariant.** A read that starts after a bump has resolved never returns a value from before the commit
 * that was bumped; and when all is over, every process reads the last commit.
 */
import { expect } from 'chai';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import type { CacheSettings, Store } from '../../lib/index.js';
import { withDeadline } from '../../lib/async/deadline.js';
import { lend } from '../support/lenders.js';
import { uniqueName } from '../support/redis.js';
import { describeOnEachStore } from '../support/stores.js';
import { interleavings } from './interleavings.js';
import { Database, Process, type SteppedRead } from './process.js';
import { type Listeners, tellingStore } from './telling-store.js';

/** The contents of the store at the start of a schedule. */
const STARTS = {
  /** No key. */
  cold: async () => {},
  /** The generations without the entry. */
  minted: async ([process]: Starters, item: number) => {
    await process.read(item);
    await process.bump(item);
  },
  /** The generations and the entry. */
  warm: async ([process]: Starters, item: number) => {
    await process.read(item);
  },
  /** The same, and the entry in the local tiers of all processes. */
  local: async (processes: Starters, item: number) => {
    for (const process of processes) await process.read(item);
  },
  /** The same, and each process answers the entry by itself. */
  tracked: async (processes: Starters, item: number) => {
    for (let read = 0; read < 3; read++) for (const process of processes) await process.read(item);
    for (const process of processes) expect(process.answers(item)).to.equal(0);
  },
};

/** The local tier of each process. */
const LOCAL: Partial<Record<keyof typeof STARTS, CacheSettings['local']>> = {
  local: { mode: 'verify', maxEntries: 100 },
  tracked: { mode: 'track', maxEntries: 100, heartbeatMs: 60_000 },
};

/** The processes of a world; one that takes no steps in its schedule is the first. */
type Starters = readonly [Process, ...Process[]];

/** The clients that take steps: readers A and C, writers B and D, and the eviction E of the item's generation. */
type Client = 'A' | 'B' | 'C' | 'D' | 'E';

class World {
  readonly #name = uniqueName();
  readonly #database = new Database();
  readonly #processes: Readonly<Record<Client, Process>>;
  readonly #admin: Store;
  #item = 0;

  /** `together`: the readers are calls of one process, which may join each other's loads. `local`: with local tiers. */
  constructor(open: () => Store, { together, local }: { together: boolean; local?: CacheSettings['local'] }) {
    const options = local === undefined ? {} : { local };
    const process = () => new Process(this.#name, open(), this.#database, options);
    const reader = process();
    this.#processes = { A: reader, B: process(), C: together ? reader : process(), D: process(), E: process() };
    this.#admin = open();
    lend({ what: 'the store of the eviction', close: () => this.#admin.close() });
  }

  /** Takes the steps of a schedule, on an item of its own, and checks the invariant. */
  async run(schedule: readonly Client[], start: keyof typeof STARTS): Promise<void> {
    const item = this.#item++;
    const { A, B, C, D, E } = this.#processes;
    await STARTS[start]([E, ...new Set([A, B, C, D])], item);

    const trace: string[] = [];
    const reads: { who: string; read: SteppedRead; floor: number }[] = [];
    /** The last commit whose bump has resolved: the least version for reads that start now. */
    let floor = 0;
    const readSteps = (who: string, process: Process) => {
      const read = process.stepwise(item);
      return [
        async () => {
          reads.push({ who, read, floor });
          await read.lookup();
        },
        () => read.load(),
        () => read.fill(),
      ];
    };
    const writeSteps = (process: Process) => {
      let version: number;
      return [
        async () => void (version = this.#database.commit(item)),
        async () => {
          await process.bump(item);
          floor = Math.max(floor, version);
        },
      ];
    };
    const steps: Record<Client, (() => Promise<void>)[]> = {
      ...{ A: readSteps('A', A), B: writeSteps(B), C: readSteps('C', C), D: writeSteps(D) },
      E: [() => this.#evict(item)],
    };
    for (const client of schedule) {
      trace.push(`${client}${4 - steps[client].length}`);
      await steps[client].shift()!();
    }
    for (const { who, read, floor: least } of reads) {
      const value = await read.value();
      if (!(value! >= least)) expect.fail(`${who} read ${value}, not ${least}, ${start}: ${trace.join(' ')}`);
    }
    for (const process of new Set([A, B, C, E])) {
      const value = await process.read(item);
      if (value !== this.#database.read(item)) {
        expect.fail(`at last ${value} is read, not ${this.#database.read(item)}, ${start}: ${trace.join(' ')}`);
      }
    }
  }

  #evict(item: number): Promise<void> {
    const key = generationKey(keyPrefix(this.#name), `item=${item}`) as string as Parameters<
      Store['delete']
    >[0][number];
    return withDeadline('delete', 10_000, async (deadline) => void (await this.#admin.delete([key], deadline)));
  }
}

describeOnEachStore(
  'a bump, in every interleaving',
  ({ name, place }) => {
    for (const start of Object.keys(STARTS) as (keyof typeof STARTS)[]) {
      // A network delays pushes: on Redis another process may answer what is old until one arrives.
      if (name === 'redisStore' && start === 'tracked') continue;
      const all = async (steps: Partial<Record<Client, number>>, together: boolean) => {
        const { open } = place();
        const listeners: Listeners = new Map();
        const opened = start === 'tracked' ? () => tellingStore(open(), listeners) : open;
        const world = new World(opened, { together, local: LOCAL[start] });
        let count = 0;
        for (const schedule of interleavings(steps as Record<Client, number>)) {
          await world.run(schedule, start);
          count++;
        }
        return count;
      };

      it(`of a read with a commit and its bump (${start})`, async () => {
        expect(await all({ A: 3, B: 2 }, false)).to.equal(10);
      });

      it(`of a read with two writers (${start})`, async () => {
        expect(await all({ A: 3, B: 2, D: 2 }, false)).to.equal(210);
      });

      it(`of a read with a commit, its bump and an eviction of the generation (${start})`, async () => {
        expect(await all({ A: 3, B: 2, E: 1 }, false)).to.equal(60);
      });

      // On Redis only the hardest start: thousands of further schedules would show the same as in memory.
      if (name === 'redisStore' && start !== 'warm' && start !== 'local') continue;

      it(`of two reads in two processes with a commit and its bump (${start})`, async () => {
        expect(await all({ A: 3, B: 2, C: 3 }, false)).to.equal(560);
      });

      it(`of two reads in one process, which may join loads, with a commit and its bump (${start})`, async () => {
        expect(await all({ A: 3, B: 2, C: 3 }, true)).to.equal(560);
      });

      if (name === 'redisStore') continue;
      it(`of two reads in one process with a commit, its bump and an eviction (${start})`, async () => {
        expect(await all({ A: 3, B: 2, C: 3, E: 1 }, true)).to.equal(5_040);
      });
    }
  },
  { maxBytes: 1 << 30 },
);
