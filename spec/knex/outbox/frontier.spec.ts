/**
 * The two pieces of arithmetic with snapshots that the relay relies on, on a model of PostgreSQL's transactions: they
 * begin, record events, commit or abort in any order, while relays, other processes and migrations come in between.
 */
import { expect } from 'chai';
import fc from 'fast-check';
import { Frontier } from '../../../lib/knex/outbox/frontier.js';
import { parseSnapshot, type Snapshot } from '../../../lib/knex/postgres/snapshot.js';
import { type EarlierSnapshots, type OutboxSurvey, TAIL_MAX } from '../../../lib/knex/outbox/survey.js';
import type { EventPosition } from '../../../lib/knex/outbox/event-position.js';
import { EventAges } from '../../../lib/knex/relay/event-ages.js';

interface Event extends EventPosition {
  held: boolean;
  /** 0: its own columns name its scope. Otherwise its lookup may rest on events of lower ranks. */
  readonly rank: number;
  /** The commit of the oldest change whose scope no other event bumps any more. */
  sinceMs: number;
}

/** The events of one batch whose bumps the partition owes. */
interface Owed {
  /** That of the oldest event. */
  readonly xid: bigint;
  readonly rank: number;
  sinceMs: number;
}

/** PostgreSQL, as far as an outbox of one cache is concerned. A step takes a millisecond. */
class Model {
  nowMs = 0;
  /** What the store's clock shows beyond that. */
  offsetMs = 0;
  readonly #open = new Map<bigint, Event[]>();
  /** Committed, and not yet deleted. */
  events: Event[] = [];
  owed: Owed[] = [];
  readonly lookups: number;
  #next = 3n;
  #ended = 2n;
  #seq = 1n;

  constructor(lookups = 0) {
    this.lookups = lookups;
  }

  get open(): bigint[] {
    return [...this.#open.keys()];
  }

  begin(): void {
    this.#open.set(this.#next++, []);
  }

  record(nth: number, held: boolean): void {
    const xid = this.#nth(nth);
    const rank = held ? 0 : nth % (this.lookups + 1);
    if (xid !== undefined) this.#open.get(xid)!.push({ xid, seq: this.#seq++, held, rank, sinceMs: Infinity });
  }

  end(nth: number, commits: boolean): void {
    const xid = this.#nth(nth);
    if (xid === undefined) return;
    if (commits) {
      for (const event of this.#open.get(xid)!) this.events.push({ ...event, sinceMs: this.nowMs });
    }
    this.#open.delete(xid);
    if (xid > this.#ended) this.#ended = xid;
  }

  /** A migration's lock is free: the event is one like others, of a transaction from long ago. */
  letGo(nth: number): void {
    const held = this.events.filter((event) => event.held);
    if (held.length > 0) held[nth % held.length]!.held = false;
  }

  snapshot(): Snapshot {
    const xmax = this.#ended + 1n;
    return parseSnapshot(`1:${xmax}:${this.open.filter((xid) => xid < xmax).join()}`);
  }

  /** What the query of survey.ts returns. */
  survey({ pending, watermark }: Frontier, asked: EarlierSnapshots | undefined): OutboxSurvey {
    const snapshot = this.snapshot();
    const firsts = new Map<bigint, EventPosition>();
    const held = new Map<bigint, EventPosition>();
    for (const event of [...this.events].sort(inOrder)) {
      const into = event.held ? held : firsts;
      if (!into.has(event.xid)) into.set(event.xid, event);
    }
    const pendingEvents = pending.flatMap(({ xid, seq }) => {
      const first = this.events
        .filter((event) => !event.held && event.xid === xid && event.seq >= seq)
        .sort(inOrder)[0];
      return first ? [first] : [];
    });
    const beyond = this.events.filter((event) => !event.held && inOrder(event, watermark) >= 0).sort(inOrder);
    const tail: EventPosition[] = [];
    for (const event of beyond) {
      if (tail.at(-1)?.xid === event.xid) continue;
      const last = tail.at(-1);
      const goOn =
        last === undefined ||
        (asked !== undefined &&
          last.xid < asked.latest.xmax &&
          (last.xid >= asked.oldest.xmax || asked.oldest.open.includes(last.xid)));
      if (!goOn || tail.length === TAIL_MAX) break;
      tail.push(event);
    }
    return {
      ...{ snapshot, pendingEvents, tail, isTailCut: tail.length === TAIL_MAX, heldByMigration: [...held.values()] },
      ...{
        life: 'p',
        authority: undefined,
        layouts: [],
        partitions: new Map(),
        lookups: this.lookups,
        lagMs: undefined,
      },
    };
  }

  get firstOwed(): bigint | undefined {
    return this.owed.map(({ xid }) => xid).sort((a, b) => Number(a - b))[0];
  }

  /** What a claim finds, which is then deleted, by anybody: bumped, or owed by the partition. */
  claim({ pending, watermark }: Frontier, max: number, owes = false): number {
    const found = this.events
      .filter((event) => !event.held)
      .filter(
        (event) =>
          inOrder(event, watermark) >= 0 || pending.some(({ xid, seq }) => event.xid === xid && event.seq >= seq),
      )
      .sort(inOrder)
      .slice(0, max);
    this.#resolve(found, owes);
    return found.length;
  }

  /** The partition makes the bumps of the oldest batch that it owes. */
  pay(): void {
    const first = this.firstOwed;
    this.owed = this.owed.filter(({ xid }) => xid !== first);
  }

  deleteOne(nth: number): void {
    if (this.events.length > 0) this.#resolve([this.events[nth % this.events.length]!]);
  }

  /**
   * Deletes events. A lookup misses its scope, if it can: a change took away a row on its way, and the event of that change, of a
   * lower rank, is left to bump the scope.
   */
  #resolve(found: readonly Event[], owes = false): void {
    this.events = this.events.filter((event) => !found.includes(event));
    const owed: Owed[] = [];
    for (const { rank, sinceMs } of found) {
      // Its event may be in the outbox, or resolved and owed.
      const other = [...this.events, ...this.owed].find((each) => each.rank < rank);
      if (other) other.sinceMs = Math.min(other.sinceMs, sinceMs);
      else if (owes) owed.push({ xid: found.map(({ xid }) => xid).sort((a, b) => Number(a - b))[0]!, rank, sinceMs });
    }
    this.owed.push(...owed);
  }

  #nth(nth: number): bigint | undefined {
    return this.open[nth % Math.max(1, this.open.length)];
  }
}

function inOrder(a: EventPosition, b: EventPosition): number {
  return a.xid === b.xid ? Number(a.seq - b.seq) : Number(a.xid - b.xid);
}

const nth = fc.nat(9);
const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('begin' as const) }) },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('record' as const), nth, held: fc.nat(9).map((n) => n === 0) }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('end' as const), nth, commits: fc.nat(4).map((n) => n > 0) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('claim' as const), max: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('owe' as const), max: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('pay' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('deleteOne' as const), nth }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('letGo' as const), nth }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('check' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('clock' as const), byMs: fc.integer({ min: -50, max: 50 }) }) },
);

interface Seen {
  readonly model: Model;
  readonly frontier: Frontier;
  readonly ageMs: number | undefined;
}

/** Runs steps, and calls `check` after each survey. Returns what it came to. */
function run(
  steps: readonly (typeof step extends fc.Arbitrary<infer S> ? S : never)[],
  check: (seen: Seen) => void,
  lookups = 0,
) {
  const model = new Model(lookups);
  const frontier = new Frontier();
  const ages = new EventAges();
  for (const each of steps) {
    model.nowMs++;
    if (each.kind === 'begin') model.begin();
    else if (each.kind === 'record') model.record(each.nth, each.held);
    else if (each.kind === 'end') model.end(each.nth, each.commits);
    else if (each.kind === 'claim') model.claim(frontier, each.max);
    else if (each.kind === 'owe') model.claim(frontier, each.max, true);
    else if (each.kind === 'pay') model.pay();
    else if (each.kind === 'deleteOne') model.deleteOne(each.nth);
    else if (each.kind === 'letGo') model.letGo(each.nth);
    else if (each.kind === 'clock') model.offsetMs += each.byMs;
    else {
      const now = { timeMs: model.nowMs + model.offsetMs, ownMs: model.nowMs };
      const surveyed = model.survey(frontier, ages.earlierSnapshots);
      const ageMs = ages.check(now, surveyed, model.firstOwed);
      frontier.advance(surveyed);
      check({ model, frontier, ageMs });
    }
  }
  return { model, frontier, ages };
}

describe('the frontier', () => {
  it('covers every present and future event', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => {
        run(steps, ({ model, frontier: { pending, watermark } }) => {
          for (const event of model.events) {
            const isIn =
              inOrder(event, watermark) >= 0 || pending.some(({ xid, seq }) => event.xid === xid && event.seq >= seq);
            expect(isIn, `event ${event.xid}/${event.seq}`).to.equal(true);
          }
          for (const xid of model.open) {
            expect(
              xid >= watermark.xid || pending.some((other) => other.xid === xid && other.seq === 0n),
              `${xid}`,
            ).to.equal(true);
          }
        });
      }),
      { numRuns: 3_000 },
    );
  });

  it('leaves no event behind once all transactions have ended', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => {
        const { model, frontier } = run(steps, () => {});
        while (model.open.length > 0) model.end(0, true);
        for (const event of model.events) event.held = false;
        while (model.claim(frontier, 3) > 0)
          if (model.nowMs++ % 2 === 0) frontier.advance(model.survey(frontier, undefined));
        expect(model.events).to.deep.equal([]);
      }),
      { numRuns: 3_000 },
    );
  });

  it('moves past all transactions but open ones and those with events', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => {
        run(steps, ({ model, frontier: { pending, watermark } }) => {
          const waiting = new Set([...model.open, ...model.events.map(({ xid }) => xid)]);
          for (const { xid } of pending) expect(waiting.has(xid), `${xid} is over`).to.equal(true);
          const [first] = model.events.filter(({ held }) => !held).sort(inOrder);
          const least = first === undefined || first.xid >= model.snapshot().xmax ? model.snapshot().xmax : first.xid;
          expect(watermark.xid >= least).to.equal(true);
        });
      }),
      { numRuns: 1_000 },
    );
  });

  it('is not moved beyond the ids of this history by an id of another one', () => {
    const model = new Model();
    const frontier = new Frontier();
    model.events.push({ xid: 10n ** 9n, seq: 1n, held: false, rank: 0, sinceMs: 0 }); // from a restored dump
    frontier.advance(model.survey(frontier, undefined));
    model.begin();
    model.record(0, false);
    model.end(0, true);
    expect(frontier.watermark.xid).to.equal(3n);
    expect(model.claim(frontier, 9)).to.equal(2);
  });
});

describe('the age of the oldest event', () => {
  for (const lookups of [0, 1, 3]) {
    it(`is at least the age of the oldest visible change without a bump, for any clock of the store and ${lookups} lookups`, () => {
      let vouched = 0;
      fc.assert(
        fc.property(fc.array(step, { maxLength: 160, size: 'max' }), (steps) => {
          run(
            steps,
            ({ model, ageMs }) => {
              if (ageMs === undefined) return;
              vouched++;
              for (const { xid, seq, sinceMs } of model.events) {
                expect(model.nowMs - sinceMs, `event ${xid}/${seq}`).to.be.at.most(ageMs);
              }
              for (const { xid, sinceMs } of model.owed) {
                expect(model.nowMs - sinceMs, `bumps owed since ${xid}`).to.be.at.most(ageMs);
              }
            },
            lookups,
          );
        }),
        { numRuns: lookups === 0 ? 5_000 : 2_500 },
      );
      expect(vouched).to.be.greaterThan(1_000);
    });
  }

  const at = (timeMs: number) => ({ timeMs, ownMs: timeMs });
  /** A survey of a database whose transactions end in order, up to `xid`, with events of these. */
  const surveyed = (xid: bigint, ...events: bigint[]): OutboxSurvey => ({
    ...{ snapshot: parseSnapshot(`1:${xid + 1n}:`), pendingEvents: [], heldByMigration: [], isTailCut: false },
    tail: events.map((each) => ({ xid: each, seq: 1n })),
    ...{ life: 'p', authority: undefined, layouts: [], partitions: new Map(), lookups: 0, lagMs: undefined },
  });

  it('is undefined until the outbox was empty or all events of the first check are gone', () => {
    const ages = new EventAges();
    expect(ages.check(at(1_000), surveyed(10n, 5n))).to.equal(undefined);
    expect(ages.check(at(1_100), surveyed(20n, 5n))).to.equal(undefined);
    expect(ages.check(at(1_200), surveyed(30n, 15n))).to.equal(200); // 15 committed after the first check
    expect(ages.check(at(1_300), surveyed(40n))).to.equal(0);
  });

  it('stays at the wait of the events under a load that never leaves the outbox empty', () => {
    const ages = new EventAges();
    ages.check(at(0), surveyed(0n));
    for (let tick = 1n; tick < 500n; tick++) {
      // Events wait for 7 checks.
      const ageMs = ages.check(at(Number(tick) * 100), surveyed(tick * 10n, tick * 10n - 69n, tick * 10n));
      if (tick > 10n) expect(ageMs).to.equal(700);
    }
  });

  it('falls at once after a long backlog', () => {
    const ages = new EventAges();
    ages.check(at(0), surveyed(0n));
    let nowMs = 0;
    for (let tick = 1n; tick <= 40n; tick++) ages.check(at((nowMs += 100)), surveyed(tick * 10n, 1n));
    expect(ages.check(at((nowMs += 100)), surveyed(410n, 405n))).to.equal(100);
  });

  it('keeps a bounded number of checks, at the cost of larger ages only', () => {
    const ages = new EventAges();
    ages.check(at(0), surveyed(0n));
    for (let tick = 1n; tick <= 5_000n; tick++) ages.check(at(Number(tick) * 100), surveyed(tick * 10n, 25_001n));
    const ageMs = ages.check(at(500_100), surveyed(50_010n, 25_001n))!;
    expect(ageMs).to.be.within(250_100, 275_000);
  });

  it('does not fall for more transactions than a survey lists', () => {
    const ages = new EventAges();
    ages.check(at(0), surveyed(0n));
    ages.check(at(100), {
      ...surveyed(1_000n, 5n),
      snapshot: parseSnapshot(`1:1001:${Array.from({ length: 400 }, (_, i) => i + 300).join()}`),
    });
    const many = Array.from({ length: TAIL_MAX }, (_, i) => BigInt(i + 300));
    expect(ages.check(at(200), { ...surveyed(2_000n, ...many), isTailCut: true })).to.equal(200);
    expect(ages.check(at(300), surveyed(2_000n, 301n, 302n))).to.equal(200); // seen by the third check, not by the second
  });

  it('is the longer of two clocks when the store’s was set back or the machine slept', () => {
    for (const [later, ageMs] of [
      [{ timeMs: 4_000, ownMs: 6_000 }, 1_000],
      [{ timeMs: 65_000, ownMs: 5_010 }, 60_000],
    ] as const) {
      const ages = new EventAges();
      ages.check(at(5_000), surveyed(10n));
      expect(ages.check(later, surveyed(20n, 15n))).to.equal(ageMs);
    }
  });

  it('goes back by one check more for each lookup, unless the outbox was empty', () => {
    const age = (lookups: number) => {
      const ages = new EventAges();
      const check = (ms: number, ...survey: Parameters<typeof surveyed>) =>
        ages.check(at(ms), { ...surveyed(...survey), lookups });
      check(0, 0n);
      for (let tick = 1n; tick < 10n; tick++) check(Number(tick) * 100, tick * 10n, tick * 10n - 5n);
      const waiting = check(1_000, 100n, 95n);
      return [waiting, check(1_100, 110n)];
    };
    expect([0, 1, 2, 20].map(age)).to.deep.equal([
      [100, 0],
      [200, 0],
      [300, 0],
      [1_000, 0],
    ]);
  });

  it('is undefined for a while after a trigger with a lookup is installed', () => {
    const ages = new EventAges();
    expect(ages.check(at(0), surveyed(0n))).to.equal(0);
    expect(ages.check(at(100), { ...surveyed(20n, 15n), lookups: 1 })).to.equal(undefined);
    expect(ages.check(at(200), { ...surveyed(30n, 25n), lookups: 1 })).to.equal(undefined);
    expect(ages.check(at(300), { ...surveyed(40n, 35n), lookups: 0 })).to.equal(200);
  });

  it('is undefined after another incarnation', () => {
    const ages = new EventAges();
    ages.check(at(0), surveyed(10n));
    ages.reset();
    expect(ages.earlierSnapshots).to.equal(undefined);
    expect(ages.check(at(100), surveyed(20n, 15n))).to.equal(undefined);
  });
});
