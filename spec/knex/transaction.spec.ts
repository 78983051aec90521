/** Ladder step 2: the event commits with the change, and the process that committed bumps it. docs/protocol.md, rule 8. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { ConfigurationError, GenerationalCache, integer, memoryStore } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { knexSource, type Relay } from '../../lib/knex/index.js';
import { bypassStore, observe } from '../../lib/testing/index.js';
import { recordCommands } from '../support/commands.js';
import { eventually } from '../support/deferred.js';
import { databaseUrl, schemaOf } from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis, redisUrl } from '../support/redis.js';
import { lendOutbox, lendRelay } from '../support/relay.js';
import { rejection } from '../support/rejection.js';
import { lendKnex, lendProxied } from '../support/knexes.js';
import { before, recordQueries } from '../support/queries.js';
import { createItems, openShop, recorded, type Shop } from '../support/shop.js';

describe('bump(id, { trx })', () => {
  let db: Knex;
  let shop: Shop;

  beforeEach(async () => {
    db = await lendOutbox();
    await createItems(db, { 1: 0, 2: 0 });
    shop = openShop(db);
    await shop.warm(1);
    await shop.warm(2);
  });

  const bumped = async (...items: number[]) => {
    for (const item of items) await eventually(async () => expect(await shop.outcome(item)).to.equal('miss'));
    await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
  };

  it('bumps after the commit, in this process, and deletes the event', async () => {
    const trx = await db.transaction();
    await shop.change(5)(trx);
    expect(await shop.outcome()).to.equal('hit');
    await trx.commit();
    await bumped(1);
    expect(await shop.warm()).to.equal(5);
  });

  it('bumps after the commit of a transaction with a callback', async () => {
    await db.transaction((trx) => shop.change(5)(trx));
    await bumped(1);
  });

  it('records and bumps nothing when the transaction rolls back', async () => {
    const seen = observe(shop.cache);
    const failing = db.transaction(async (trx) => {
      await shop.change(5)(trx);
      throw new Error('on purpose');
    });
    expect((await rejection(failing)).message).to.equal('on purpose');
    const trx = await db.transaction();
    await shop.change(5)(trx);
    await trx.rollback();
    await shop.cache.close();
    expect(await recorded(db)).to.deep.equal([]);
    expect(seen.events('bump')).to.deep.equal([]);
  });

  it('records nothing in a failed transaction, whose commit Knex resolves', async () => {
    const seen = observe(shop.cache);
    const trx = await db.transaction();
    await shop.change(5)(trx);
    await trx.raw('select 1/0').catch(() => {});
    await trx.commit();
    await shop.cache.close();
    expect(await recorded(db)).to.deep.equal([]);
    expect(seen.events('bump')).to.deep.equal([]);
  });

  it('records nothing for a savepoint that rolls back', async () => {
    await db.transaction(async (trx) => {
      await shop.change(5, 1)(trx);
      await trx
        .transaction(async (nested) => {
          await shop.change(6, 2)(nested);
          throw new Error('on purpose');
        })
        .catch(() => {});
    });
    await bumped(1);
    expect(await shop.outcome(2)).to.equal('hit');
  });

  it('waits for the outermost commit after a savepoint, whose promise Knex settles early', async () => {
    // Two connections: a process that reads the outbox too early does so before the queries of this spec.
    const own = lendKnex(databaseUrl(), schemaOf(db), { max: 2 });
    const shop = openShop(own);
    await shop.warm();
    const outer = await own.transaction();
    const nested = await outer.transaction();
    const innermost = await nested.transaction();
    await shop.change(5)(innermost);
    await innermost.commit();
    await nested.commit();
    await Promise.all([innermost.executionPromise, nested.executionPromise]);
    const queries = await recordQueries(own, () => Promise.all([own.raw('select 1'), own.raw('select 2')]));
    expect(queries).to.deep.equal(['select 1', 'select 2']);
    expect(await shop.outcome()).to.equal('hit');
    await outer.commit();
    await eventually(async () => expect(await shop.outcome()).to.equal('miss'));
  });

  it('loses the event of a savepoint when the outermost transaction rolls back', async () => {
    const outer = await db.transaction();
    await outer.transaction((nested) => shop.change(5)(nested));
    await outer.rollback();
    await shop.cache.close();
    expect(await recorded(db)).to.deep.equal([]);
  });

  it('sends one command and two queries after the commit for many bumps in one transaction', async () => {
    const seen = observe(shop.cache);
    let queries: string[] = [];
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        queries = await recordQueries(db, async () => {
          await db.transaction(async (trx) => {
            await shop.items.bump({ item: 1 }, { trx });
            await shop.items.bumpMany([{ item: 1 }, { item: 2 }, { item: 2 }], { trx, cause: 'import' });
            await trx.transaction((nested) => shop.items.bump({ item: 2 }, { trx: nested }));
          });
          await eventually(() => expect(seen.events('bump')).to.have.length(1));
          await shop.cache.close(); // waits for the rest
        });
      },
      { from: shop.name },
    );
    expect(seen.events('bump')[0]).to.include({ cause: 'call bump', bumps: 2, error: undefined });
    expect(commands.map(([command]) => command)).to.deep.equal(['EVAL']); // bumps both
    const [begin, ...rest] = queries;
    expect(begin).to.equal('BEGIN;');
    expect(rest.filter((sql) => sql.startsWith('insert into gencache_out'))).to.have.length(3);
    expect(rest.slice(rest.indexOf('COMMIT;'))).to.deep.equal([
      'COMMIT;',
      'select event.path, event', // what was recorded
      'with authority as (selec', // deletes it
    ]);
  });

  it('reports the scopes of a transaction by namespace, and no count of those that had a generation', async () => {
    const seen = observe(shop.cache);
    const { cache, items } = shop;
    const shelves = cache.namespace('shop', integer()).namespace('shelf', integer());
    await cache.transaction(async (trx) => {
      await items.bumpMany([{ item: 1 }, { item: 77 }], { trx });
      await shelves.bump({ shop: 1, shelf: 2 }, { trx });
    });
    const events = seen.events('bump').map(({ namespace, origin, bumps, moved, paths }) => ({
      ...{ namespace, origin, bumps, moved },
      paths: [...paths].sort(),
    }));
    const common = { origin: 'transaction', moved: undefined };
    expect(events.sort((a, b) => a.bumps - b.bumps)).to.deep.equal([
      { ...common, namespace: 'shop/shelf', bumps: 1, paths: ['shop=1/shelf=2'] },
      { ...common, namespace: 'item', bumps: 2, paths: ['item=1', 'item=77'] },
    ]);
    await items.bump({ item: 1 });
    expect(seen.events('bump').at(-1)).to.include({ namespace: 'item', origin: 'call', bumps: 1 });
    expect(cache.statistics.total('bumps', { namespace: 'item' })).to.equal(3);
    expect(cache.statistics.total('bumps', { namespace: 'shop/shelf' })).to.equal(1);
  });

  it('bumps both caches of one source in one transaction', async () => {
    const other = openShop(db, { source: shop.source });
    await other.warm(2);
    await db.transaction(async (trx) => {
      await shop.change(5, 1)(trx);
      await other.change(5, 2)(trx);
    });
    await bumped(1);
    await eventually(async () => expect(await other.outcome(2)).to.equal('miss'));
    expect(await shop.outcome(2)).to.equal('hit'); // the other cache's
  });

  it('reports a bump that fails after the commit, and leaves its event to a relay', async () => {
    const server = await privateRedis();
    const shop = openShop(db, { redis: server.url, bumpDeadlineMs: 100 });
    await shop.warm();
    const seen = observe(shop.cache);
    const trx = await db.transaction();
    await shop.change(5)(trx);
    server.pause();
    await trx.commit();
    await eventually(() => expect(seen.events('bump')[0]?.error).to.have.nested.property('cause.code', 'DEADLINE'));
    expect(await recorded(db)).to.deep.equal(['item=1']);
    server.resume();
    lendRelay({ db, cache: shop.name, url: server.url });
    await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
    await eventually(async () => expect(await shop.outcome()).to.equal('miss'));
  });

  it('refuses a Knex instance in place of a transaction', async () => {
    const error = await rejection(shop.items.bump({ item: 1 }, { trx: db as Knex.Transaction }));
    expect(error).to.be.instanceOf(ConfigurationError);
    expect(error.message).to.equal(
      '`trx` must be the Knex transaction that makes the change, but got a function. Pass the transaction of ' +
        '`db.transaction()`, or leave `trx` out.',
    );
    expect(await recorded(db)).to.deep.equal([]);
  });
});

describe('transaction', () => {
  let db: Knex;
  let shop: Shop;
  let other: Shop;

  beforeEach(async () => {
    db = await lendOutbox();
    await createItems(db, { 1: 0, 2: 0 });
    shop = openShop(db);
    other = openShop(db, { name: shop.name });
    await shop.warm();
    await other.warm();
  });

  const price = async () => ((await db('item').where({ id: 1 })) as [{ price: number }])[0].price;
  const nothingHappened = async () => {
    expect(await price()).to.equal(0);
    expect(await recorded(db)).to.deep.equal([]);
    expect(await other.outcome()).to.equal('hit');
  };

  it('returns the result of its work after the bump: its caller and all others read the write', async () => {
    expect(await shop.set(5)).to.deep.equal({ value: 'now 5', bump: 'done' });
    expect(await recorded(db)).to.deep.equal([]);
    expect(await other.outcome()).to.equal('miss');
    expect(await shop.price.fetch({ item: 1 })).to.equal(5);
  });

  it('costs three queries besides those of its work, and one command', async () => {
    let queries: string[] = [];
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        queries = await recordQueries(db, () => shop.set(5));
      },
      { from: shop.name },
    );
    expect(queries).to.deep.equal([
      'BEGIN;',
      'update "item" set "price', // the work's
      'insert into gencache_out', // the work's bump
      'savepoint gencache; rele', // which transaction this is, and that it has not failed
      'COMMIT;',
      'select event.path, event', // what it recorded
      'with authority as (selec', // deletes that
    ]);
    expect(commands.map(([command]) => command)).to.deep.equal(['EVAL']); // bumps
  });

  it('costs one query and no command when the work wrote nothing', async () => {
    let queries: string[] = [];
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        queries = await recordQueries(db, async () => {
          const { bump } = await shop.cache.transaction((trx) => trx('item').select('id'));
          expect(bump).to.equal('done');
        });
      },
      { from: shop.name },
    );
    expect(queries).to.deep.equal([
      'BEGIN;',
      'select "id" from "item"', // the work's
      'savepoint gencache; rele', // none
      'COMMIT;',
    ]);
    expect(commands).to.deep.equal([]);
  });

  it('sends no command when the work recorded nothing', async () => {
    const { commands, result } = await recordCommands(
      redisUrl(),
      () => shop.cache.transaction((trx) => trx('item').where({ id: 1 }).update({ price: 1 })),
      { from: shop.name },
    );
    expect(result).to.deep.equal({ value: 1, bump: 'done' });
    expect(commands).to.deep.equal([]);
  });

  it('rejects with the error of its work, unwrapped, and commits nothing', async () => {
    const thrown = new Error('on purpose');
    const error = await rejection(
      shop.cache.transaction(async (trx) => {
        await shop.change(5)(trx);
        throw thrown;
      }),
    );
    expect(error).to.equal(thrown);
    await nothingHappened();
  });

  it('rejects when the work swallowed a failed statement, after which PostgreSQL commits nothing', async () => {
    const error = await rejection(
      shop.cache.transaction(async (trx) => {
        await shop.change(5)(trx);
        await trx.raw('select 1/0').catch(() => {});
      }),
    );
    expect(error).to.have.property('code', '25P02');
    await nothingHappened();
  });

  it('rejects when a statement that was not awaited fails just before COMMIT', async () => {
    const error = await rejection(
      shop.cache.transaction(async (trx) => {
        await shop.change(5)(trx);
        before(db, 'savepoint gencache', () => void trx.raw('select 1/0').catch(() => {}));
      }),
    );
    expect(error).to.be.instanceOf(ConfigurationError);
    expect(error.message).to.match(
      /^Every statement of a transaction must be awaited before it commits, but PostgreSQL rolled back: /,
    );
    await nothingHappened();
  });

  for (const [how, end] of Object.entries<(trx: Knex.Transaction) => PromiseLike<unknown>>({
    'rolls back by itself': (trx) => trx.rollback(),
    'rolls back by raw SQL': (trx) => trx.raw('rollback'),
  })) {
    it(`rejects work that ${how}`, async () => {
      const error = await rejection(
        shop.cache.transaction(async (trx) => {
          await shop.change(5)(trx);
          await end(trx);
        }),
      );
      expect(error.message).to.match(
        /^`work` must leave COMMIT and ROLLBACK to transaction\(\), but it has ended the transaction\./,
      );
      await nothingHappened();
    });
  }

  for (const [how, end] of Object.entries<(trx: Knex.Transaction) => PromiseLike<unknown>>({
    'commits by itself': (trx) => trx.commit(),
    'commits by raw SQL': (trx) => trx.raw('commit'),
  })) {
    it(`rejects work that ${how}; a relay bumps its events`, async () => {
      const error = await rejection(
        shop.cache.transaction(async (trx) => {
          await shop.change(5)(trx);
          await end(trx);
        }),
      );
      expect(error.message).to.match(
        /^`work` must leave COMMIT and ROLLBACK to transaction\(\), but it has ended the transaction\./,
      );
      expect(await recorded(db)).to.deep.equal(['item=1']);
      lendRelay({ db, cache: shop.name });
      await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
      expect(await other.outcome()).to.equal('miss');
    });
  }

  for (const isolationLevel of ['read committed', 'repeatable read', 'serializable'] as const) {
    it(`runs at the isolation level ${isolationLevel}`, async () => {
      const { value, bump } = await shop.cache.transaction(
        async (trx) => {
          await shop.change(5)(trx);
          const { rows } = await trx.raw<{ rows: { transaction_isolation: string }[] }>('show transaction_isolation');
          return rows[0]!.transaction_isolation;
        },
        { isolationLevel },
      );
      expect([value, bump]).to.deep.equal([isolationLevel, 'done']);
      expect(await other.outcome()).to.equal('miss');
    });
  }

  it('rejects with PostgreSQL’s error when the transaction can’t be serialized', async () => {
    const error = await rejection(
      shop.cache.transaction(
        async (trx) => {
          await trx('item').where({ id: 1 });
          await db('item').where({ id: 1 }).update({ price: 9 });
          await shop.change(10)(trx);
        },
        { isolationLevel: 'repeatable read' },
      ),
    );
    expect(error).to.have.property('code', '40001');
    expect(await price()).to.equal(9);
    expect(await recorded(db)).to.deep.equal([]);
  });

  describe('inside a transaction of the caller', () => {
    it('runs in a savepoint, and bumps after the outer commit', async () => {
      const outer = await db.transaction();
      expect(await shop.set(5, { trx: outer })).to.deep.equal({ value: 'now 5', bump: 'outer' });
      await shop.cache.settled();
      expect(await other.outcome()).to.equal('hit');
      await outer.commit();
      await eventually(async () => expect(await other.outcome()).to.equal('miss'));
      await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
    });

    it('bumps the events of triggers after the outer commit', async () => {
      await recordByTrigger(db, shop.name);
      await db.transaction((outer) =>
        shop.cache.transaction((trx) => trx('item').where({ id: 1 }).update({ price: 5 }), { trx: outer }),
      );
      await eventually(async () => expect(await other.outcome()).to.equal('miss'));
    });

    it('rolls back its own part alone when it fails', async () => {
      await db.transaction(async (outer) => {
        await shop.change(3)(outer);
        const failing = shop.cache.transaction(
          async (trx) => {
            await shop.change(5, 2)(trx);
            throw new Error('on purpose');
          },
          { trx: outer },
        );
        expect((await rejection(failing)).message).to.equal('on purpose');
      });
      await eventually(async () => expect(await other.outcome()).to.equal('miss'));
      expect(await price()).to.equal(3);
    });

    it('rejects work that ends its savepoint', async () => {
      const outer = await db.transaction();
      const error = await rejection(shop.cache.transaction(async (trx) => void (await trx.commit()), { trx: outer }));
      expect(error.message).to.match(
        /^`work` must leave COMMIT and ROLLBACK to transaction\(\), but it has ended the transaction\./,
      );
      await outer.rollback();
    });

    it('refuses `strict` and `isolationLevel`, which belong to the outermost transaction', async () => {
      await db.transaction(async (outer) => {
        for (const options of [{ strict: true }, { isolationLevel: 'serializable' }] as const) {
          const error = await rejection(shop.set(5, { trx: outer, ...options }));
          expect(error).to.be.instanceOf(ConfigurationError);
          expect(error.message).to.match(
            /^`strict` and `isolationLevel` must be set where the outermost transaction begins, /,
          );
        }
      });
      await nothingHappened();
    });
  });

  it('bumps the events that deferred triggers record at COMMIT', async () => {
    await recordByTrigger(db, shop.name, 'deferrable initially deferred');
    const { value, bump } = await shop.cache.transaction(async (trx) => {
      await trx('item').where({ id: 1 }).update({ price: 5 });
      return recorded(trx);
    });
    expect([value, bump]).to.deep.equal([[], 'done']);
    expect(await other.outcome()).to.equal('miss');
    expect(await recorded(db)).to.deep.equal([]);
  });

  describe('with a relay that has claimed or deleted its events', () => {
    /** A writer behind a proxy that stops in the moment in which its COMMIT is carried out, until told. */
    const stopAfterCommit = async () => {
      const { db: own, proxy } = await lendProxied(schemaOf(db));
      const writer = openShop(own, { name: shop.name });
      before(own, 'COMMIT', () => proxy.holdReplies());
      const writing = writer.set(5);
      await eventually(async () => expect(await price()).to.equal(5));
      return { writing, proxy };
    };

    it('bumps events that a relay has claimed and not bumped, before it resolves', async () => {
      const redis = await startProxy(Number(new URL(redisUrl()).port || 6379));
      const relaying = lendKnex(databaseUrl(), schemaOf(db));
      const relay = lendRelay({ db: relaying, cache: shop.name, url: redis.url, bumpDeadlineMs: 10_000 });
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      await other.warm(); // a relay's first check bumps everything
      before(relaying, 'skip locked', () => redis.hold());
      const { writing, proxy } = await stopAfterCommit();
      await eventually(async () => expect(await claimable(db)).to.equal(0));
      expect(await other.outcome()).to.equal('hit'); // claimed, and not bumped
      proxy.releaseReplies();
      expect(await writing).to.include({ bump: 'done' });
      expect(await other.outcome()).to.equal('miss');
      expect(await recorded(db)).to.deep.equal(['item=1']); // the relay's claim
      redis.release();
      await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
    });

    it('bumps nothing for events that a relay has bumped and deleted', async () => {
      const relay: Relay = lendRelay({ db, cache: shop.name });
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      await other.warm();
      const { writing, proxy } = await stopAfterCommit();
      await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
      expect(await other.outcome()).to.equal('miss');
      const { result, commands } = await recordCommands(
        redisUrl(),
        () => {
          proxy.releaseReplies();
          return writing;
        },
        { from: (command) => command.some((part) => part.includes(`${shop.name}:0}:g:item=1`)) },
      );
      expect(result).to.include({ bump: 'done' });
      expect(commands).to.deep.equal([]);
    });
  });

  it('resolves with `pending` when the bump fails after the commit; a relay bumps', async () => {
    const server = await privateRedis();
    const shop = openShop(db, { redis: server.url, bumpDeadlineMs: 100 });
    await shop.warm();
    const seen = observe(shop.cache);
    const { error, ...result } = await shop.cache.transaction(async (trx) => {
      await shop.change(5)(trx);
      server.pause();
    });
    expect(result).to.deep.equal({ value: undefined, bump: 'pending' });
    expect(error).to.have.property('code', 'BUMP');
    expect(error).to.have.nested.property('cause.code', 'DEADLINE');
    expect(seen.events('bump')[0]).to.have.property('error', error);
    expect(await recorded(db)).to.deep.equal(['item=1']);
    server.resume();
    lendRelay({ db, cache: shop.name, url: server.url, store: redisStore(lendRedis({ url: server.url })) });
    await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
    expect(await shop.warm()).to.equal(5);
  });

  for (const [name, store] of Object.entries({ memoryStore: memoryStore(), bypassStore: bypassStore() })) {
    it(`commits plain and strict on ${name}`, async () => {
      const cache = new GenerationalCache({ name: 'own', store, source: knexSource(db) });
      const items = cache.namespace('item', integer());
      const price = items.one('price', {
        load: (ids, { db }) => db<{ id: number; price: number }>('item').where({ id: Number(ids[0]!.item) }),
        by: ({ id }) => ({ item: id }),
      });
      for (const strict of [false, true]) {
        const to = strict ? 6 : 5;
        await price.fetch({ item: 1 });
        await cache.settled();
        const done = await cache.transaction(
          async (trx) => {
            await trx('item').where({ id: 1 }).update({ price: to });
            await items.bump({ item: 1 }, { trx });
          },
          { strict },
        );
        expect(done).to.deep.equal({ value: undefined, bump: 'done', ...(strict ? { strict: 'kept' } : {}) });
        expect(await price.fetch({ item: 1 })).to.include({ price: to });
        expect(await recorded(db)).to.deep.equal([]);
      }
      await cache.close();
    });
  }

  it('rejects with PostgreSQL’s error when the work misses a table of its own, even one named like the outbox', async () => {
    const work = (trx: Knex.Transaction) => trx.raw('select schema_version from gencache_fans.schema_info');
    const error = await rejection(shop.cache.transaction(work));
    expect(error).to.have.property('code', '42P01');
    expect(error.message).to.contain('relation "gencache_fans.schema_info" does not exist');
  });

  it('commits nothing without an outbox', async () => {
    await db.raw('drop table gencache_outbox, gencache_boot, gencache_authority');
    const error = await rejection(shop.cache.transaction((trx) => trx('item').where({ id: 1 }).update({ price: 5 })));
    expect(error).to.have.property('code', 'CONFIGURATION');
    expect(error.message).to.contain('Call `installOutbox` in a migration');
    expect(await price()).to.equal(0);
  });
});

/** Events of this cache that no relay has claimed. */
async function claimable(db: Knex): Promise<number> {
  return db.transaction(async (trx) => (await trx('gencache_outbox').forUpdate().skipLocked()).length);
}

async function recordByTrigger(db: Knex, cache: string, when = ''): Promise<void> {
  await db.raw(
    `create function record_item() returns trigger language plpgsql as $$ begin
       insert into gencache_outbox (cache, path, source, operation) values ('${cache}', 'item=' || new.id, 'item', tg_op);
       return null;
     end $$;
     create constraint trigger record_item after update on item ${when} for each row execute function record_item()`,
  );
}
