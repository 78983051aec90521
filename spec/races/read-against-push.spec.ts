/**
 * Every interleaving of the steps of readers (command, reply, load, fill), writers (commit, bump), a push on its way, and a
 * lost tracking connection, for a process that answers reads by itself (`local`, `mode: 'track'`).
 *
 * **Invariant.** A read that asks the store returns no value from before a commit whose bump had resolved when it began. A
 * read, or a peek after any step, that does not ask returns none from before a commit that the process had been told of: by
 * the push of its bump, by a bump of its own that has resolved, or by a reset after it. When all is over, the process answers
 * the last commit by itself.
 *
 * A push is one step, so there is one for each bump of another process. Two reads that are alike begin in one order.
 */
import { expect } from 'chai';
import { memoryStore } from '../../lib/index.js';
import { momentOf, ownClocks } from '../../lib/async/moment.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { uniqueName } from '../support/redis.js';
import { interleavings } from './interleavings.js';
import { Database, Process, type SteppedRead } from './process.js';
import { INCARNATION, type Listeners, tellingStore } from './telling-store.js';

/** Readers A and C and writer D in the process, writer B elsewhere, a push that arrives (T), the connection that is lost (L). */
type Client = 'A' | 'B' | 'C' | 'D' | 'L' | 'T';

/** How the process knows the entry at the start. */
type Start =
  | 'answered by the process'
  /** After a push that changed nothing, as of a TTL that was renewed: the next read asks, and finds its value in the tier. */
  | 'held by the process';

class World {
  readonly #name = uniqueName();
  readonly #database = new Database();
  readonly #reader: Process;
  readonly #writer: Process;
  readonly #listeners: Listeners = new Map();
  #item = 0;
  #pushes: (() => void)[] = [];
  #isPushing = true;
  /** The last commit whose bump has resolved, and the last one of which the process was told. */
  #bumped = 0;
  #told = 0;

  constructor() {
    const memory = memoryStore({ maxBytes: 1 << 30 });
    const open = () =>
      tellingStore(memory, this.#listeners, (listener, keys) => {
        const version = this.#database.read(this.#item);
        if (this.#isPushing) this.#pushes.push(() => this.#tell(version, () => listener.changed(keys)));
      });
    const local = { mode: 'track', maxEntries: 100, heartbeatMs: 60_000 } as const;
    this.#reader = new Process(this.#name, open(), this.#database, { local });
    this.#writer = new Process(this.#name, open(), this.#database);
  }

  async run(schedule: readonly Client[], start: Start): Promise<void> {
    const item = ++this.#item;
    this.#bumped = this.#told = 0;
    await this.#answers(0);
    if (start === 'held by the process') {
      this.#listener.changed([generationKey(keyPrefix(this.#name), `item=${item}`)]);
      expect(this.#reader.answers(item)).to.equal(undefined);
    }
    const reads: { client: Client; read: SteppedRead; least: number }[] = [];
    const steps: Record<Client, (() => Promise<unknown> | void)[]> = {
      ...{ A: this.#read('A', reads), C: this.#read('C', reads), B: this.#write(this.#writer) },
      ...{ D: this.#write(this.#reader), T: [() => this.#pushes.shift()!()], L: this.#lose() },
    };
    const trace: string[] = [];
    for (const client of schedule) {
      trace.push(client);
      await steps[client].shift()!();
      const answer = this.#reader.answers(item);
      if (answer !== undefined && answer < this.#told) {
        expect.fail(`the process answers ${answer}, told of ${this.#told}, after ${trace.join(' ')}`);
      }
    }
    for (const { client, read, least } of reads) {
      const value = await read.value();
      if (!(value! >= least)) expect.fail(`${client} read ${value}, not ${least}: ${trace.join(' ')}`);
    }
    while (this.#pushes.length > 0) this.#pushes.shift()!();
    await this.#answers(this.#database.read(item));
  }

  #read(client: Client, reads: { client: Client; read: SteppedRead; least: number }[]) {
    const read = this.#reader.stepwise(this.#item);
    return [
      async () => {
        const [bumped, told] = [this.#bumped, this.#told];
        reads.push({ client, read, least: (await read.ask()) ? bumped : told });
      },
      () => read.reply(),
      () => read.load(),
      () => read.fill(),
    ];
  }

  #write(process: Process) {
    let version: number;
    return [
      () => void (version = this.#database.commit(this.#item)),
      async () => {
        await process.bump(this.#item);
        this.#bumped = Math.max(this.#bumped, version);
        if (process === this.#reader) this.#told = Math.max(this.#told, version);
      },
    ];
  }

  /** The connection is lost with its pushes; the process notices; another one begins. */
  #lose() {
    const listener = this.#listener;
    return [
      () => {
        this.#isPushing = false;
        this.#pushes = [];
      },
      () => this.#tell(this.#bumped, () => listener.reset(undefined)),
      () => {
        this.#isPushing = true;
        this.#tell(this.#bumped, () => listener.reset(INCARNATION));
        listener.beat({ sentAt: momentOf(ownClocks) });
      },
    ];
  }

  #tell(version: number, tell: () => void): void {
    tell();
    this.#told = Math.max(this.#told, version);
  }

  get #listener() {
    return [...this.#listeners.values()][0]!;
  }

  /** The first read loads or asks, and the second one finds the value; the process answers from then on. */
  async #answers(version: number): Promise<void> {
    for (let read = 0; read < 2; read++) expect(await this.#reader.read(this.#item)).to.equal(version);
    expect(this.#reader.answers(this.#item)).to.equal(version);
  }
}

/** Whether each push arrives after its bump, on a connection that was not lost meanwhile, and A begins before C. */
function isPossible(schedule: readonly Client[]): boolean {
  const taken = { A: 0, B: 0, C: 0, D: 0, L: 0, T: 0 };
  let pushes = 0;
  for (const client of schedule) {
    const step = ++taken[client];
    if (client === 'C' && taken.A === 0) return false;
    if (client === 'B' && step === 2 && taken.L % 3 === 0) pushes++;
    if (client === 'L' && step === 1) pushes = 0;
    if (client === 'T' && --pushes < 0) return false;
  }
  return true;
}

describe('a bump and its push, in every interleaving', () => {
  const holds = (name: string, steps: Partial<Record<Client, number>>, count: number) => {
    for (const start of ['answered by the process', 'held by the process'] as const) {
      it(`with ${name}: ${count} schedules, of an entry that is ${start}`, async () => {
        const world = new World();
        let schedules = 0;
        for (const schedule of interleavings(steps as Record<Client, number>)) {
          if (!isPossible(schedule)) continue;
          await world.run(schedule, start);
          schedules++;
        }
        expect(schedules).to.equal(count);
      });
    }
  };

  holds('a read', { A: 4, B: 2, T: 1 }, 35);
  holds('a read and a bump of the process', { A: 4, B: 2, D: 2, T: 1 }, 1_260);
  holds('a read and a connection that is lost after the push', { A: 4, B: 2, L: 3, T: 1 }, 1_050);
  holds('a read and a connection that is lost with the push', { A: 4, B: 2, L: 3 }, 1_260);
  holds('two reads and a bump of the process', { A: 4, C: 4, D: 2 }, 1_575);
  holds('two reads of the process', { A: 4, B: 2, C: 4, T: 1 }, 5_775);
});
