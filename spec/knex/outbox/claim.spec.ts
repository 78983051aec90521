/** What a claim finds, and what it costs, on real transactions. The arithmetic is specified in outbox-frontier.spec.ts. */
import { privatePostgres } from '../../support/postgres.js';
import { expect } from 'chai';
import knex, { type Knex } from 'knex';
import { installOutbox } from '../../../lib/knex/index.js';
import { claimEvents } from '../../../lib/knex/outbox/claim.js';
import { Frontier } from '../../../lib/knex/outbox/frontier.js';
import { surveyOutbox } from '../../../lib/knex/outbox/survey.js';
import { EventAges } from '../../../lib/knex/relay/event-ages.js';
import { lend } from '../../support/lenders.js';
import { lendOutbox } from '../../support/relay.js';

const CACHE = 'shop';

/** What a relay does between polls, without a store. */
class Claimer {
  readonly frontier = new Frontier();
  readonly ages = new EventAges();
  readonly db: Knex;
  #timeMs = 0;

  constructor(db: Knex) {
    this.db = db;
  }

  /** Moves the frontier on, and the clock. Returns the age by which something may wait. */
  async poll(): Promise<number | undefined> {
    const timeMs = (this.#timeMs += 10);
    const surveyed = await surveyOutbox(this.db, {
      ...{ cache: CACHE, ranges: this.frontier, outbox: {} },
      earlier: this.ages.earlierSnapshots,
    });
    this.frontier.advance(surveyed);
    return this.ages.check({ timeMs, ownMs: timeMs }, surveyed);
  }

  /** What a claim finds, and deletes. */
  claim(max = 1_000): Promise<string[]> {
    return this.db.transaction(async (trx) =>
      (await claimEvents(trx, { cache: CACHE, ranges: this.frontier, max, outbox: {} })).map(({ path }) => path),
    );
  }

  async drain(): Promise<string[]> {
    await this.poll();
    const all: string[] = [];
    for (let some; (some = await this.claim()).length > 0;) all.push(...some);
    return all.sort();
  }
}

async function record(db: Knex, path: string, cache = CACHE): Promise<void> {
  await db.raw(`insert into gencache_outbox (cache, path, source, operation) values (?, ?, 'spec', 'INSERT')`, [
    cache,
    path,
  ]);
}

describe('a claim', () => {
  let db: Knex;
  let claimer: Claimer;

  beforeEach(async () => {
    db = await lendOutbox({ pool: { max: 20 } });
    claimer = new Claimer(db);
  });

  it('finds the events of a transaction that was open for longer than a thousand others', async () => {
    const slow = await db.transaction();
    await record(slow, 'slow=1');
    for (let i = 0; i < 1_000; i++) {
      await record(db, `item=${i}`);
      if (i % 100 === 0) expect(await claimer.drain()).to.have.length(i === 0 ? 1 : 100);
    }
    expect(await claimer.drain()).to.have.length(99);
    await record(slow, 'slow=2');
    await slow.commit();
    expect(await claimer.poll()).to.equal(10); // the poll before had not seen it
    expect((await claimer.claim()).sort()).to.deep.equal(['slow=1', 'slow=2']);
  });

  it('finds events of transactions that committed in another order than they began', async () => {
    const open = await Promise.all(Array.from({ length: 8 }, () => db.transaction()));
    for (const [i, trx] of open.entries()) await record(trx, `item=${i}`);
    for (const i of [7, 0, 5, 2, 6, 1, 3, 4]) {
      await open[i]!.commit();
      expect(await claimer.drain()).to.deep.equal([`item=${i}`]);
    }
  });

  it('finds no event of a rolled back transaction or savepoint, and all of released savepoints', async () => {
    const aborted = await db.transaction();
    await record(aborted, 'item=1');
    await aborted.rollback();
    const trx = await db.transaction();
    await record(trx, 'item=2');
    const rolledBack = await trx.transaction();
    await record(rolledBack, 'item=3');
    await claimer.poll();
    await rolledBack.rollback();
    const released = await trx.transaction();
    await record(released, 'item=4');
    await released.commit();
    expect(await claimer.drain()).to.deep.equal([]);
    await trx.commit();
    expect(await claimer.drain()).to.deep.equal(['item=2', 'item=4']);
  });

  it('finds an event that a migration has released, with an old transaction id', async () => {
    expect(await claimer.poll()).to.equal(0);
    await db.raw(
      `insert into gencache_outbox (cache, path, held_by, source, operation) values (?, '', 'lock', 'm', 'migration')`,
      [CACHE],
    );
    for (let i = 0; i < 3; i++) {
      await record(db, `item=${i}`);
      expect(await claimer.drain()).to.deep.equal([`item=${i}`]);
    }
    await db('gencache_outbox').update({ held_by: null });
    expect(await claimer.poll()).to.be.greaterThan(20);
    expect(await claimer.claim()).to.deep.equal(['']);
  });

  it('skips events of another claim, which a survey still shows, and finds them if that claim rolls back', async () => {
    for (let i = 0; i < 10; i++) await record(db, `item=${i}`);
    await claimer.poll();
    const other = await db.transaction();
    expect(
      (await claimEvents(other, { cache: CACHE, ranges: claimer.frontier, max: 4, outbox: {} })).map(
        ({ path }) => path,
      ),
    ).to.deep.equal([0, 1, 2, 3].map((i) => `item=${i}`));
    expect(await claimer.drain()).to.deep.equal([4, 5, 6, 7, 8, 9].map((i) => `item=${i}`));
    expect(await claimer.poll()).to.equal(undefined); // still there: nothing is vouched for
    await other.rollback();
    expect(await claimer.drain()).to.deep.equal([0, 1, 2, 3].map((i) => `item=${i}`));
    expect(await claimer.poll()).to.equal(0);
  });

  it('takes at most `max` events, also from pending transactions', async () => {
    const late = await db.transaction();
    for (let i = 0; i < 5; i++) await record(late, `late=${i}`);
    await record(db, 'item=0');
    await claimer.drain();
    await record(db, 'item=1');
    await late.commit();
    await claimer.poll();
    expect(await claimer.claim(3)).to.have.length(3);
    expect(await claimer.claim(3)).to.have.length(3);
    expect(await claimer.claim(3)).to.have.length(0);
  });

  it('takes events of its own cache only', async () => {
    await record(db, 'item=1', 'other');
    await record(db, 'item=2');
    expect(await claimer.drain()).to.deep.equal(['item=2']);
    expect(await claimer.poll()).to.equal(0);
    expect(await db('gencache_outbox').pluck('path')).to.deep.equal(['item=1']);
  });

  it('finds rows of a restored dump with any ids', async () => {
    await record(db, 'item=1');
    await claimer.drain();
    await db.raw(
      `insert into gencache_outbox (cache, xid, seq, path, source, operation) overriding system value
       values (:cache, '5', 1, 'past=1', 's', 'o'), (:cache, '9000000000000000000', 1, 'future=1', 's', 'o')`,
      { cache: CACHE },
    );
    claimer.frontier.reset(); // once a minute
    expect(await claimer.poll()).to.equal(undefined);
    await record(db, 'item=2');
    expect(await claimer.drain()).to.deep.equal(['future=1', 'item=2', 'past=1']);
    await record(db, 'item=3');
    expect(await claimer.drain()).to.deep.equal(['item=3']);
  });

  describe('behind dead rows that an old snapshot keeps', () => {
    const DEAD = 20_000;

    interface Query {
      readonly sql: string;
      readonly bindings: readonly unknown[];
    }

    /** Buffers of 8 kB that a query of Knex's reads, as it was sent. */
    async function buffers(at: Knex, { sql, bindings }: Query): Promise<number> {
      const { rows } = await at.raw<{ rows: { 'QUERY PLAN': { Plan: Plan }[] }[] }>(
        `explain (analyze, buffers, timing off, format json) ${sql.replaceAll(/\$\d+/g, '?')}`,
        bindings as Knex.RawBinding[],
      );
      const plan = rows[0]!['QUERY PLAN'][0]!.Plan;
      return plan['Shared Hit Blocks'] + plan['Shared Read Blocks'];
    }

    interface Plan {
      readonly 'Shared Hit Blocks': number;
      readonly 'Shared Read Blocks': number;
    }

    /** The buffers that a poll and a claim read, each run as it is. */
    async function cost(): Promise<{ poll: number; claim: number }> {
      const run: Query[] = [];
      const note = (query: Query) => run.push(query);
      await record(db, 'item=1');
      db.on('query', note);
      await surveyOutbox(db, { cache: CACHE, ranges: claimer.frontier, outbox: {} });
      const rolledBack = new Error('only to see the query');
      await db
        .transaction(async (trx) => {
          await claimEvents(trx, { cache: CACHE, ranges: claimer.frontier, max: 100, outbox: {} });
          throw rolledBack;
        })
        .catch(() => {});
      db.removeListener('query', note);
      const [poll, claim] = ['with recursive', 'delete from'].map((start) =>
        run.find(({ sql }) => sql.trimStart().startsWith(start))!,
      );
      const result = { poll: await buffers(db, poll!), claim: 0 };
      await db
        .transaction(async (trx) => {
          result.claim = await buffers(trx, claim!);
          throw rolledBack;
        })
        .catch(() => {});
      expect(await claimer.drain()).to.deep.equal(['item=1']);
      return result;
    }

    for (const [how, statistics] of [
      ['as autovacuum leaves it', 'vacuum analyze'],
      ['never analyzed', ''],
      ['analyzed when it was full', 'full'],
    ] as const) {
      it(`reads a few buffers, ${how}`, async () => {
        const fresh = await cost();
        await db.raw(
          `insert into gencache_outbox (cache, path, source, operation) select ?, 'item=' || i, 's', 'o' from generate_series(1, ?) as i`,
          [CACHE, DEAD],
        );
        if (statistics === 'full') await db.raw('analyze gencache_outbox');
        const old = await db.transaction({ isolationLevel: 'repeatable read' });
        await old.raw('select count(*) from gencache_outbox');
        expect(await claimer.drain()).to.have.length(DEAD);
        if (statistics === 'vacuum analyze') await db.raw('vacuum analyze gencache_outbox');
        await claimer.poll();
        const bloated = await cost();
        await old.rollback();
        expect(bloated.poll).to.be.at.most(fresh.poll + 10);
        expect(bloated.claim).to.be.at.most(fresh.claim + 10);
      });
    }

    it('reads a few buffers within one transaction of all those rows, and behind an open one', async () => {
      const fresh = await cost();
      const bulk = await db.transaction();
      await bulk.raw(
        `insert into gencache_outbox (cache, path, source, operation) select ?, 'item=' || i, 's', 'o' from generate_series(1, ?) as i`,
        [CACHE, DEAD],
      );
      await record(db, 'item=0');
      await claimer.drain(); // now `bulk` is one that was open
      await bulk.commit();
      const old = await db.transaction({ isolationLevel: 'repeatable read' });
      await old.raw('select count(*) from gencache_outbox');
      await claimer.poll();
      for (let claimed = 0; claimed < DEAD - 1_000; claimed += 1_000) await claimer.claim();
      await claimer.poll();
      const surveyed = await surveyOutbox(db, { cache: CACHE, ranges: claimer.frontier, outbox: {} });
      expect(surveyed.pendingEvents).to.have.length(1);
      const query: Query = { sql: '', bindings: [] };
      const note = (run: Query) => run.sql.startsWith('delete') && Object.assign(query, run);
      db.on('query', note);
      await claimer.claim(100);
      db.removeListener('query', note);
      const read = await buffers(db, query);
      await old.rollback();
      // A hundred rows to lock and to delete, and a hundred dead ones to pass over.
      expect(read).to.be.at.most(fresh.claim + 800);
    });
  });
});

describe('a prepared transaction', () => {
  it('is not skipped: its events are claimed after COMMIT PREPARED', async () => {
    const server = await privatePostgres({ settings: { max_prepared_transactions: '5' } });
    const db = knex({ client: 'pg', connection: server.url, pool: { min: 0, max: 5 } });
    lend({ what: 'its Knex', close: () => db.destroy() });
    await installOutbox(db);
    const claimer = new Claimer(db);
    const prepared = await db.transaction();
    await record(prepared, 'item=1');
    await prepared.raw(`prepare transaction 'first'`);
    await prepared.rollback(); // Knex's own bookkeeping: nothing is open there
    for (let i = 10; i < 20; i++) {
      await record(db, `item=${i}`);
      expect(await claimer.drain()).to.deep.equal([`item=${i}`]);
    }
    await db.raw(`commit prepared 'first'`);
    expect(await claimer.drain()).to.deep.equal(['item=1']);
  });
});
