import { expect } from 'chai';
import type { Knex } from 'knex';
import { databaseUrl, schemaOf } from '../../../support/postgres.js';
import { redisUrl, uniqueName } from '../../../support/redis.js';
import { lendOutbox } from '../../../support/relay.js';
import { runProgram } from '../../../support-specs/programs/run.js';

const EVENTS = 100_000;

/**
 * A million events take 2 to 3 times the memory of none, and so do a hundred thousand: what a batch needs, and what V8
 * leaves uncollected. (See the benchmark relay.drain.)
 */
const GROWTH_MAX_BYTES = 150e6;

describe('a relay with 100,000 events of distinct scopes to relay', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox();
  });

  const record = (cache: string, events: number) =>
    db.raw(
      `insert into gencache_outbox (cache, path, source, operation)
       select ?, 'detector=' || i || '/environment=' || i, 'public.detector', 'UPDATE' from generate_series(1, ?::int) as i`,
      [cache, events],
    );

  for (const [how, others] of [
    ['of one transaction', false],
    ['of one that was open while others committed', true],
  ] as const) {
    it(`${how}, claims a batch at a time, and keeps its memory bounded`, async function () {
      this.timeout(90_000);
      const cache = uniqueName();
      const program = runProgram('spec/knex/relay/programs/relay.ts', [
        JSON.stringify({
          redis: redisUrl(),
          postgres: databaseUrl(),
          searchPath: [schemaOf(db)],
          cache,
          maxStalenessMs: 60_000,
        }),
      ]);
      const next = async () => JSON.parse(await program.line()) as { events: number; relayed: number; rss: number };
      expect(await next()).to.deep.equal({ trusted: true });
      await record(cache, 1_000);
      const { rss: before } = await next();
      if (others) {
        const bulk = await db.transaction();
        await bulk.raw('select pg_current_xact_id()');
        await record(cache, 1);
        expect(await next()).to.include({ events: 1 });
        await bulk.raw(
          `insert into gencache_outbox (cache, path, source, operation)
           select ?, 'detector=' || i, 's', 'o' from generate_series(1, ?::int) as i`,
          [cache, EVENTS],
        );
        await bulk.commit();
      } else await record(cache, EVENTS);
      const wanted = 1_000 + EVENTS + (others ? 1 : 0);
      let batch;
      do {
        batch = await next();
        expect(batch.events).to.be.at.most(1_000);
      } while (batch.relayed < wanted);
      expect(batch.relayed).to.equal(wanted);
      expect(batch.rss - before).to.be.below(GROWTH_MAX_BYTES);
      expect(await db('gencache_outbox').where({ cache })).to.deep.equal([]);
    });
  }
});
