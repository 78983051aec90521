/**
 * Interleavings of strict commits (quarantine, commit, lift) with reads (lookup, load, fill), a bump and an
 * eviction. **Invariant.** A read that starts after a strict commit never returns a value from before it; and when all
 * is over, every process reads the last commit. A commit whose quarantine was evicted before it is a plain one: its promise
 * begins with its lift.
 */
import { expect } from 'chai';
import { nonce } from '../../lib/model/generation.js';
import { generationKey, type GenerationKey, keyPrefix } from '../../lib/model/key.js';
import type { Store } from '../../lib/index.js';
import { type Deadline, withDeadline } from '../../lib/async/deadline.js';
import { lend } from '../support/lenders.js';
import { uniqueName } from '../support/redis.js';
import { interleavings } from './interleavings.js';
import { Database, Process, type SteppedRead } from './process.js';

/**
 * The clients that take steps: readers A and C; R, whose reads take one step each; strict writers V and W; a plain bump B;
 * the eviction E of the generation.
 */
export type Client = 'A' | 'B' | 'C' | 'E' | 'R' | 'V' | 'W';

/** Processes that read, and the store of their writers. */
export class StrictCommits {
  readonly #name = uniqueName();
  readonly #database = new Database();
  readonly #readers: Readonly<Record<'A' | 'C', Process>>;
  readonly #store: Store;
  #item = 0;

  constructor(open: () => Store) {
    this.#readers = {
      A: new Process(this.#name, open(), this.#database),
      C: new Process(this.#name, open(), this.#database),
    };
    this.#store = open();
    lend({ what: 'the writers’ store', close: () => this.#store.close() });
  }

  /** Takes the steps of a schedule, on an item of its own (`warm`: read before), and checks the invariant. */
  async run(schedule: readonly Client[], warm: boolean): Promise<void> {
    const item = this.#item++;
    const key = generationKey(keyPrefix(this.#name), `item=${item}`);
    const { A, C } = this.#readers;
    if (warm) await A.read(item);

    const trace: string[] = [];
    const reads: { who: string; read: SteppedRead; floor: number }[] = [];
    /** The least version for reads that start now. */
    let floor = 0;
    const unlifted = new Set<{ evicted: boolean }>();
    const readSteps = (who: 'A' | 'C') => {
      const read = this.#readers[who].stepwise(item);
      return [
        async () => {
          reads.push({ who, read, floor });
          await read.lookup();
        },
        () => read.load(),
        () => read.fill(),
      ];
    };
    const wholeRead = async () => {
      const value = await C.read(item);
      if (!(value! >= floor)) expect.fail(`R read ${value}, not ${floor}, warm: ${warm}: ${trace.join(' ')}`);
    };
    const strictSteps = () => {
      const token = nonce();
      const own = { evicted: false };
      let version = 0;
      return [
        async () => {
          await this.#ask((deadline) => this.#store.quarantine([key], token, 60_000, deadline));
          unlifted.add(own);
        },
        async () => {
          version = this.#database.commit(item);
          if (!own.evicted) floor = version;
        },
        async () => {
          await this.#ask((deadline) => this.#store.lift([key], token, nonce(), 3_600_000, deadline));
          unlifted.delete(own);
          floor = Math.max(floor, version);
        },
      ];
    };
    const steps: Record<Client, (() => Promise<void>)[]> = {
      ...{ A: readSteps('A'), C: readSteps('C'), V: strictSteps(), W: strictSteps() },
      ...{ R: [wholeRead, wholeRead], B: [() => C.bump(item)] },
      E: [
        async () => {
          await this.#evict(key);
          for (const writer of unlifted) writer.evicted = true;
        },
      ],
    };
    for (const client of schedule) {
      trace.push(`${client}${4 - steps[client].length}`);
      await steps[client].shift()!();
    }
    for (const { who, read, floor: least } of reads) {
      const value = await read.value();
      if (!(value! >= least)) expect.fail(`${who} read ${value}, not ${least}, warm: ${warm}: ${trace.join(' ')}`);
    }
    for (const process of [A, C]) {
      const value = await process.read(item);
      if (value !== this.#database.read(item)) {
        expect.fail(`at last ${value} is read, not ${this.#database.read(item)}, warm: ${warm}: ${trace.join(' ')}`);
      }
    }
  }

  #evict(key: GenerationKey): Promise<number> {
    return this.#ask((deadline) =>
      this.#store.delete([key as string as Parameters<Store['delete']>[0][number]], deadline),
    );
  }

  #ask<T>(work: (deadline: Deadline) => Promise<T>): Promise<T> {
    return withDeadline('writer', 10_000, work);
  }
}

/** Runs every schedule of these steps, or one of so many, and returns their number. */
export async function runSchedules(
  open: () => Store,
  warm: boolean,
  steps: Partial<Record<Client, number>>,
  { oneOf = 1 } = {},
): Promise<number> {
  const world = new StrictCommits(open);
  let i = 0;
  let count = 0;
  for (const schedule of interleavings(steps as Record<Client, number>)) {
    if (i++ % oneOf !== 0) continue;
    await world.run(schedule, warm);
    count++;
  }
  return count;
}
