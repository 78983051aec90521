/**
 * A writer dies, or is stopped, between any two steps of its transaction, plain and strict. With proxies in front of
 * both servers each step is carried out, and the writer never learns.
 */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { generationKey, keyPrefix } from '../../../lib/model/key.js';
import type { WriterOptions } from '../../programs/writer.js';
import { type Program, runProgram } from '../../support-specs/programs/run.js';
import { eventually } from '../../support/deferred.js';
import { type Proxy, startProxy } from '../../support/proxy.js';
import { lendRedis, redisUrl } from '../../support/redis.js';
import { lendRelay } from '../../support/relay.js';
import { lendKnex } from '../../support/knexes.js';
import { openShop, recorded, type Shop } from '../../support/shop.js';
import { standbyless } from '../../support/standbyless.js';
import { watch } from '../../support/watch.js';

const QUARANTINE_MS = 3_000;

describe('a writer that dies', () => {
  let postgres: Awaited<ReturnType<typeof standbyless>>;
  let db: Knex;
  let reader: Shop;
  let postgresProxy: Proxy;
  let redisProxy: Proxy;

  before(async () => {
    postgres = await standbyless();
  });

  beforeEach(async () => {
    db = lendKnex(postgres.url, 'public');
    await db('item').where({ id: 1 }).update({ price: 0 });
    await db('gencache_outbox').delete();
    reader = openShop(db);
    await reader.warm();
    postgresProxy = await startProxy(Number(new URL(postgres.url).port), { protocol: 'postgres' });
    redisProxy = await startProxy(Number(new URL(redisUrl()).port || 6379));
  });

  afterEach(() => postgres.releaseAll(db));

  /** A writer of price 5, as far as its work goes. */
  const begin = async (options: Partial<WriterOptions>): Promise<Program> => {
    const database = new URL(postgres.url);
    database.host = `127.0.0.1:${postgresProxy.port}`;
    const all: WriterOptions = {
      ...{ name: reader.name, database: database.href, redis: redisProxy.url, price: 5 },
      ...{ strict: false, hangs: false, quarantineMs: QUARANTINE_MS, ...options },
    };
    const writer = runProgram('spec/programs/writer.ts', [JSON.stringify(all)]);
    expect(await writer.line()).to.equal('working');
    return writer;
  };
  const goOn = ({ child }: Program) => child.kill('SIGUSR2');
  const kill = async ({ child, ended }: Program) => {
    child.kill('SIGKILL');
    expect(await ended).to.equal('SIGKILL');
  };
  const price = async () => ((await db('item').where({ id: 1 })) as [{ price: number }])[0].price;
  const committed = () => eventually(async () => expect(await price()).to.equal(5));
  const sessions = () =>
    db('pg_stat_activity').whereIn('state', ['active', 'idle in transaction']).whereRaw('pid <> pg_backend_pid()');
  const aborted = async () => {
    await eventually(async () => expect(await sessions()).to.deep.equal([]));
    expect(await price()).to.equal(0);
    expect(await recorded(db)).to.deep.equal([]);
  };
  const outcome = (which: string) => eventually(async () => expect(await reader.outcome()).to.equal(which));
  const generation = () => lendRedis().get(generationKey(keyPrefix(reader.name), 'item=1'));
  /** The next relay bumps the events that are left; from then on readers see the committed rows. */
  const relayed = async () => {
    const before = await generation();
    lendRelay({ db, cache: reader.name });
    await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
    await outcome('miss');
    expect(await generation()).not.to.equal(before ?? '');
    expect(await reader.warm()).to.equal(await price());
    expect(await reader.outcome()).to.equal('hit');
  };

  describe('in a plain commit', () => {
    it('commits, records and bumps nothing before COMMIT', async () => {
      const writer = await begin({});
      await kill(writer);
      await aborted();
      expect(await reader.outcome()).to.equal('hit');
    });

    it('leaves the event to a relay after COMMIT', async () => {
      const writer = await begin({});
      redisProxy.hold();
      goOn(writer);
      await committed();
      await kill(writer);
      expect(await recorded(db)).to.deep.equal(['item=1']);
      expect(await reader.outcome()).to.equal('hit'); // step 2 promises no more
      await relayed();
    });

    it('leaves the event to a second, harmless bump after its own', async () => {
      const before = await generation();
      const writer = await begin({});
      redisProxy.holdReplies();
      goOn(writer);
      await eventually(async () => expect(await generation()).not.to.equal(before));
      await kill(writer);
      expect(await recorded(db)).to.deep.equal(['item=1']);
      await relayed();
    });
  });

  describe('in a strict commit', () => {
    /** A writer whose COMMIT was carried out under quarantine, and which does not know it. */
    const committedStrictly = async () => {
      const writer = await begin({ strict: true });
      redisProxy.holdReplies();
      goOn(writer);
      await outcome('quarantine');
      postgresProxy.holdReplies();
      redisProxy.releaseReplies();
      await committed();
      return writer;
    };

    it('changes nothing before its quarantine', async () => {
      const writer = await begin({ strict: true });
      await kill(writer);
      await aborted();
      expect(await reader.outcome()).to.equal('hit');
    });

    it('commits nothing under quarantine before COMMIT; the quarantine lapses', async () => {
      const seen = watch(reader, db);
      const writer = await begin({ strict: true });
      redisProxy.holdReplies();
      goOn(writer);
      await outcome('quarantine');
      await kill(writer);
      await aborted();
      await eventually(async () => expect(await generation()).not.to.match(/!/));
      await seen.end();
      expect(seen.stale).to.deep.equal([]);
      expect(await reader.warm()).to.equal(0);
      expect(await reader.outcome()).to.equal('hit');
    });

    it('commits plainly while COMMIT runs: the event is in the outbox', async () => {
      const writer = await begin({ strict: true, hangs: true });
      goOn(writer);
      const pid = await postgres.hanging(db);
      expect(await reader.outcome()).to.equal('quarantine');
      await kill(writer);
      await outcome('miss'); // lapsed
      await reader.warm();
      await postgres.release(db, pid);
      await committed();
      expect(await reader.warm()).to.equal(0); // docs/protocol.md, rule 12: degraded
      expect(await recorded(db)).to.deep.equal(['item=1']);
      await relayed();
    });

    it('lets no reader see an older value between COMMIT and the lift, also after the quarantine has lapsed', async () => {
      const seen = watch(reader, db);
      const writer = await committedStrictly();
      await kill(writer);
      expect(await reader.outcome()).to.equal('quarantine');
      await outcome('hit'); // lapsed, and filled by the one that watches
      await seen.end();
      expect(seen.stale).to.deep.equal([]);
      expect(await recorded(db)).to.deep.equal(['item=1']);
      await relayed();
    });

    it('lets no reader see an older value after the lift; the event is bumped again', async () => {
      const seen = watch(reader, db);
      const writer = await committedStrictly();
      redisProxy.holdReplies();
      postgresProxy.releaseReplies();
      await eventually(async () => expect(await generation()).to.match(/^[0-9]+\./));
      await kill(writer);
      await seen.end();
      expect(seen.stale).to.deep.equal([]);
      expect(await recorded(db)).to.deep.equal(['item=1']);
      await relayed();
    });
  });

  it('or is suspended under quarantine before COMMIT commits nothing: PostgreSQL ends its session', async () => {
    const seen = watch(reader, db);
    const writer = await begin({ strict: true, quarantineMs: 2 * QUARANTINE_MS });
    redisProxy.holdReplies();
    goOn(writer);
    await outcome('quarantine');
    writer.child.kill('SIGSTOP');
    redisProxy.releaseReplies();
    await eventually(async () => expect(await sessions()).to.deep.equal([]));
    expect(await reader.outcome()).to.equal('quarantine'); // longer than the session
    await eventually(async () => expect(await generation()).not.to.match(/!/));
    writer.child.kill('SIGCONT');
    expect(await writer.line()).to.match(/^\{"error":/);
    await aborted();
    await seen.end();
    expect(seen.stale).to.deep.equal([]);
    expect(await reader.warm()).to.equal(0);
  });
});
