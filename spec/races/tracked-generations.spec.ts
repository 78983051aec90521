/**
 * Every interleaving of reads, bumps, pushes, beats and a lost connection, on the code that tracks generations.
 *
 * **Invariant.** At each step: a generation that is confirmed without a round trip was the store's at some moment since the
 * last beat that has arrived was sent, and is not older than a bump of this process that has resolved.
 *
 * The schedules are too many to run one by one. They meet in far fewer states: two schedules that led to the same state of
 * the world and of the code go on alike. So each state is reached once, by the steps of one schedule from the beginning, and
 * each step from it is taken once on the code itself. The number of schedules is that of the ways through these states.
 */
import { expect } from 'chai';
import { formatGeneration, type Generation } from '../../lib/model/generation.js';
import type { RegisteredScope } from '../../lib/model/scope-registry.js';
import { ScopeRegistry } from '../../lib/model/scope-registry.js';
import { isVerified, TrackedGenerations } from '../../lib/read/tracked-generations.js';

/** A and C read, B bumps elsewhere, D bumps here, H sends beats, L loses the tracking connection, T delivers a push. */
type Client = 'A' | 'B' | 'C' | 'D' | 'H' | 'L' | 'T';
type Message =
  { readonly kind: 'push' } | { readonly kind: 'began' } | { readonly kind: 'beat'; readonly floor: number };

const GENERATIONS = Array.from({ length: 3 }, (_, i) => formatGeneration(i, 'n'.repeat(16)));
const SERVER = 'server';
const STILL = { monotonicMs: () => 0, wallMs: () => 0 };

/** One scope of one process, its generation in the store, and what is on its way. */
class World {
  readonly store = { incarnation: SERVER };
  readonly tracked = new TrackedGenerations({
    ...{ store: this.store, heartbeatMs: 1_000, refused: () => {}, clocks: STILL },
  });
  readonly scope: RegisteredScope;
  /** Steps that each client has taken. */
  readonly taken: Record<Client, number> = { A: 0, B: 0, C: 0, D: 0, H: 0, L: 0, T: 0 };
  /** The index of the store's generation. */
  #current = 0;
  /** Whether the store pushes. */
  #isOn = true;
  /** Pushes on their way. */
  #stream: Message[] = [];
  readonly #reads: Record<string, { asked: number; state?: Generation }> = {};
  /** The index of the generation at the sending of the beat under way. */
  #sent = 0;
  #own = 0;
  /** As the code counts its steps. */
  #told = 0;
  #resetAt = 0;
  #isTracked = false;
  /** The oldest generation that may be confirmed. */
  #beatFloor = 0;
  #ownFloor = 0;

  constructor() {
    const registry = new ScopeRegistry(['gencache:{spec:0}:'], 10);
    this.scope = registry.remember(registry.root, 'item', 1, 'item=1');
    this.#reset(SERVER);
    this.#deliver({ kind: 'beat', floor: 0 });
  }

  /** What each client but T does, step by step. */
  readonly #steps: Readonly<Record<string, readonly (() => void)[]>> = {
    ...{ A: this.#read('A'), C: this.#read('C') },
    B: [() => void this.#bump()],
    D: [
      () => (this.#own = this.#bump()),
      () => {
        this.#changed();
        this.#ownFloor = Math.max(this.#ownFloor, this.#own);
      },
    ],
    H: [() => void (this.#sent = this.#current), () => this.#push({ kind: 'beat', floor: this.#sent })],
    L: [
      () => {
        this.#isOn = false;
        this.#stream = [];
      },
      () => this.#reset(undefined),
      () => {
        this.#isOn = true;
        this.#push({ kind: 'began' });
      },
    ],
  };

  /** Whether a client has a step left. */
  can(client: Client, steps: Partial<Record<Client, number>>): boolean {
    if (client === 'T') return this.#stream.length > 0;
    return this.taken[client] < (steps[client] ?? 0);
  }

  take(client: Client): void {
    if (client === 'T') this.#deliver(this.#stream.shift()!);
    else this.#steps[client]![this.taken[client]++]!();
  }

  /** The generation that is confirmed, by its index. */
  get confirmed(): number | undefined {
    const index = GENERATIONS.findIndex((generation) => isVerified([this.scope], [generation]));
    return index === -1 ? undefined : index;
  }

  get isRight(): boolean {
    return this.confirmed === undefined || this.confirmed >= Math.max(this.#beatFloor, this.#ownFloor);
  }

  /**
   * All that the next steps depend on. Of the numbers of steps only the order matters, and all later ones are higher. The
   * two reads are alike.
   */
  get state(): string {
    const { tracked } = this.scope;
    const reads = ['A', 'C'].map((name) => {
      const { asked, state } = this.#reads[name] ?? { asked: 0 };
      const taken = this.taken[name as Client];
      const isUnderWay = taken === 1 || taken === 2;
      return [taken, ...(isUnderWay ? [state, asked >= this.#resetAt, asked >= (tracked?.changedAt ?? 0)] : [])].join();
    });
    const { B, D, H, L } = this.taken;
    return JSON.stringify([
      ...[
        reads.toSorted(),
        B,
        D,
        H,
        L,
        this.#current,
        this.#isOn,
        this.#isTracked,
        this.#stream,
        this.#sent,
        this.#own,
      ],
      ...[this.#beatFloor, this.#ownFloor, tracked === undefined, tracked?.verified, this.confirmed],
    ]);
  }

  /** With everything over, a beat and a read confirm the store's generation. */
  settle(): void {
    this.#deliver({ kind: 'beat', floor: this.#current });
    for (const step of this.#read('last')) step();
    expect(this.confirmed).to.equal(this.#current);
  }

  #read(name: string): (() => void)[] {
    return [
      () => void (this.#reads[name] = { asked: this.tracked.ask([this.scope]) }),
      () => (this.#reads[name]!.state = GENERATIONS[this.#current]!),
      () => this.tracked.reply(this.#reads[name]!.asked, [this.scope], [this.#reads[name]!.state!]),
    ];
  }

  #bump(): number {
    this.#current++;
    this.#push({ kind: 'push' });
    return this.#current;
  }

  #push(message: Message): void {
    if (this.#isOn) this.#stream.push(message);
  }

  #changed(): void {
    this.#told++;
    this.tracked.changed([this.scope.generationKey]);
  }

  #reset(incarnation: string | undefined): void {
    this.#resetAt = ++this.#told;
    this.#isTracked = incarnation !== undefined;
    this.tracked.reset(incarnation);
  }

  #deliver(message: Message): void {
    if (message.kind === 'push') this.#changed();
    else if (message.kind === 'began') this.#reset(SERVER);
    else {
      this.tracked.beat({ sentAt: { monotonicMs: 0, wallMs: 0 } });
      this.#beatFloor = message.floor;
    }
  }
}

const CLIENTS: readonly Client[] = ['A', 'B', 'C', 'D', 'H', 'L', 'T'];

function worldAfter(schedule: readonly Client[]): World {
  const world = new World();
  for (const client of schedule) world.take(client);
  return world;
}

/** Takes every step from every state. Returns the number of schedules, of states, and of states that confirm something. */
function explore(steps: Partial<Record<Client, number>>) {
  const ways = new Map<string, bigint>();
  let confirming = 0;
  const waysFrom = (schedule: readonly Client[]): bigint => {
    const world = worldAfter(schedule);
    const { state } = world;
    const known = ways.get(state);
    if (known !== undefined) return known;
    if (!world.isRight) expect.fail(`generation ${world.confirmed} is confirmed after ${schedule.join(' ')}`);
    if (world.confirmed !== undefined) confirming++;
    const next = CLIENTS.filter((client) => world.can(client, steps));
    let sum = 0n;
    for (const client of next) sum += waysFrom([...schedule, client]);
    if (next.length === 0) {
      world.settle();
      sum = 1n;
    }
    ways.set(state, sum);
    return sum;
  };
  return { schedules: waysFrom([]), states: ways.size, confirming };
}

describe('tracked generations, in every interleaving', () => {
  const shows = (name: string, steps: Partial<Record<Client, number>>, schedules: bigint) =>
    it(`of ${name}`, function () {
      const explored = explore(steps);
      this.test!.title += `: ${explored.schedules} schedules, ${explored.states} states`;
      expect(explored.schedules).to.equal(schedules);
      expect(explored.confirming).to.be.above(explored.states / 20);
    });

  shows('two reads, two bumps and their pushes', { A: 3, B: 1, C: 3, D: 2 }, 120_120n);
  shows('two reads, two bumps, their pushes and a beat', { A: 3, B: 1, C: 3, D: 2, H: 2 }, 23_783_760n);
  shows(
    'two reads, two bumps, their pushes, a beat and a reset',
    { A: 3, B: 1, C: 3, D: 2, H: 2, L: 3 },
    3_869_556_600n,
  );
});
