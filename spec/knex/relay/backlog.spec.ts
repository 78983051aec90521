/**
 * A relay that was away (docs/protocol.md, rule 23a): events waited, and one global bump comes before the first of them.
 *
 * Redis is stopped, or refuses connections, and comes back with the entries and generations that it had.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, integer } from '../../../lib/index.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import type { Relay, RelayOptions } from '../../../lib/knex/index.js';
import { formatGeneration, nonce } from '../../../lib/model/generation.js';
import { generationKey, keyPrefix, markKey } from '../../../lib/model/key.js';
import { recordCommands } from '../../support/commands.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { type Proxy, startProxy } from '../../support/proxy.js';
import { lendRedis, privateRedis, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import type { RedisServer } from '../../support/servers/redis-server.js';

const LIMIT_MS = 300;
/** Longer than the limit and a poll. */
const AWAY_MS = 450;
/** Longer than the limit and the second between two checks of a relay without a bound. */
const AWAY_UNBOUNDED_MS = 1_400;

/** The ways in which Redis is away, and keeps what it has. */
const OUTAGES: Readonly<Record<string, (server: RedisServer, proxy: Proxy) => () => unknown>> = {
  'was stopped': (server) => {
    server.pause();
    return () => server.resume();
  },
  'refused connections': (_, proxy) => {
    proxy.refuse();
    proxy.cut();
    return () => proxy.accept();
  },
};

describe('a relay that was away', () => {
  let db: Knex;
  let cache: string;
  let server: RedisServer;
  let proxy: Proxy;

  beforeEach(async () => {
    db = await lendOutbox({ pool: { max: 20 } });
    cache = uniqueName();
    server = await privateRedis();
    proxy = await startProxy(server.port);
  });

  const record = (items: number, from = 0) =>
    db.raw(
      `insert into gencache_outbox (cache, path, source, operation)
       select ?, 'item=' || i, 'item', 'UPDATE' from generate_series(?::int, ?::int) as i`,
      [cache, from, from + items - 1],
    );
  const waiting = async () => (await db('gencache_outbox').where({ cache })).length;
  const drained = () => eventually(async () => expect(await waiting()).to.equal(0));
  /** As if all events that wait had been recorded an hour ago, and the epoch two hours ago. */
  const age = async () => {
    await db('gencache_outbox').update({ recorded_at: db.raw(`recorded_at - interval '1 hour'`) });
    await db('gencache_authority').update({ changed_at: db.raw(`changed_at - interval '2 hours'`) });
  };
  /** Claims all events that wait, so that relays skip them. Returns a function that gives them back. */
  const claimAll = async () => {
    const trx = await db.transaction();
    await trx.raw('select from gencache_outbox where cache = ? for update', [cache]);
    return async () => void (await trx.rollback());
  };

  /** A relay and the causes of its repairs so far. */
  function watch(options: Partial<RelayOptions> = {}): { relay: Relay; causes: string[] } {
    const causes: string[] = [];
    const relay = lendRelay({
      ...{ db, cache, url: proxy.url, backlogMaxMs: LIMIT_MS, bumpDeadlineMs: 100, maxStalenessMs: 1_000 },
      ...options,
    });
    relay.on('repair', ({ cause }) => causes.push(cause));
    return { relay, causes };
  }
  const trusting = (relay: Relay) => eventually(() => expect(relay.status.trusted).to.equal(true));
  const polls = async (relay: Relay, times: number) => {
    for (let poll = 0; poll < times; poll++) await new Promise((resolve) => relay.on('poll', resolve));
  };

  /** Redis is away: each relay has noticed, `during` has run, and time has passed. */
  async function outage(
    relays: readonly Relay[],
    during: () => unknown,
    { kind = 'was stopped', awayMs = AWAY_MS } = {},
  ): Promise<void> {
    const end = OUTAGES[kind]!(server, proxy);
    for (const relay of relays) await eventually(() => expect(relay.status.trusted).to.equal(false));
    await during();
    await sleep(awayMs);
    await end();
    for (const relay of relays) await trusting(relay);
  }

  /** The number of bumps of these scopes, which have generations from now on. */
  async function mint(paths: readonly string[]) {
    const redis = lendRedis({ url: server.url });
    const keys = paths.map((path) => generationKey(keyPrefix(cache), path));
    for (const key of keys) await redis.set(key, formatGeneration(0, nonce()), 'PX', 60_000);
    return async () => (await redis.mget(keys)).map((value) => Number.parseInt(value ?? '-1', 10));
  }

  for (const kind of Object.keys(OUTAGES)) {
    it(`bumps global before the first of several batches, when Redis ${kind}`, async () => {
      const { relay, causes } = watch({ batchMax: 10 });
      await trusting(relay);
      const bumps = await mint(['', 'item=0', 'item=34']);
      const { commands } = await recordCommands(server.url, async () => {
        await outage([relay], () => record(35), { kind });
        await drained();
      });
      const prefix = keyPrefix(cache);
      const bumped = commands
        .filter(([name]) => name === 'EVAL' || name === 'EVALSHA')
        .map(([, , keys, ...args]) => args.slice(0, Number(keys)))
        .filter((keys) => keys.some((key) => key.startsWith(generationKey(prefix, ''))));
      expect(bumped[0]).to.deep.equal([generationKey(prefix, ''), markKey(prefix)]);
      const batches = bumped.slice(1);
      expect(batches.length).to.be.at.least(4);
      expect(batches.flat()).to.have.members(Array.from({ length: 35 }, (_, i) => generationKey(prefix, `item=${i}`)));
      expect(causes).to.deep.equal(['first', 'backlog']);
      expect(await bumps()).to.deep.equal([1, 1, 1]);
      await eventually(() => expect(relay.status).to.include({ events: 35, repairs: 2 }));
    });
  }

  for (const bounds of [[], [1_000]]) {
    it(`leaves no hit from before the outage, while all events wait, ${bounds.length > 0 ? 'with' : 'without'} a bound`, async () => {
      const { relay, causes } = watch({ maxStalenessMs: bounds });
      const awayMs = bounds.length > 0 ? AWAY_MS : AWAY_UNBOUNDED_MS;
      await trusting(relay);
      let version = 1;
      const shop = new GenerationalCache({ name: cache, store: redisStore(lendRedis({ url: server.url })) });
      lend({ what: 'a cache', close: () => shop.close() });
      const items = shop.namespace('item', integer()).one('version', {
        load: async (ids) => ids.map(({ item }) => ({ item, version })),
        by: ({ item }) => ({ item }),
        value: (row) => row.version,
      });
      await eventually(async () => {
        await items.fetch({ item: 1 });
        await shop.settled();
        expect((await items.lookup({ item: 1 })).outcome).to.equal('hit');
      });
      let giveBack = async () => {};
      const commit = async () => {
        version = 2;
        await record(2);
        giveBack = await claimAll();
      };
      await outage([relay], commit, { awayMs });
      expect(causes).to.deep.equal(['first', 'backlog']);
      expect(await waiting()).to.equal(2);
      await eventually(async () => expect((await items.lookup({ item: 1 })).outcome).to.not.equal('bypass'));
      expect(await items.fetch({ item: 1 })).to.equal(2);
      expect(await waiting()).to.equal(2);
      await giveBack();
      await drained();
    });
  }

  it('does not bump global when it was away for no longer than the limit', async () => {
    const { relay, causes } = watch({ backlogMaxMs: 60_000 });
    await trusting(relay);
    const bumps = await mint(['', 'item=0']);
    await outage([relay], async () => {
      await record(1);
      await age();
    });
    await drained();
    expect(causes).to.deep.equal(['first']);
    expect(await bumps()).to.deep.equal([0, 1]);
  });

  it('does not bump global for events that an earlier repair covers, and does for later ones', async () => {
    const { relay, causes } = watch();
    await trusting(relay);
    let giveBack = async () => {};
    await outage([relay], async () => {
      await record(3);
      giveBack = await claimAll();
    });
    expect(causes).to.deep.equal(['first', 'backlog']);
    await outage([relay], () => {});
    expect(causes).to.deep.equal(['first', 'backlog']);
    expect(await waiting()).to.equal(3);
    await outage([relay], () => record(1, 3));
    expect(causes).to.deep.equal(['first', 'backlog', 'backlog']);
    await giveBack();
    await drained();
    expect(causes).to.have.length(3);
  });

  it('does not bump global for events that a migration holds', async () => {
    const { relay, causes } = watch();
    await trusting(relay);
    await db.raw('create table lock (is_locked int)');
    await db('lock').insert({ is_locked: 1 });
    await outage([relay], async () => {
      await db('gencache_outbox').insert({ cache, path: '', held_by: 'lock', source: 'm', operation: 'migration' });
      await age();
    });
    await polls(relay, 5);
    expect(causes).to.deep.equal(['first']);
    expect(await waiting()).to.equal(1);
  });

  it('does not bump global while it is at work, however far it is behind', async () => {
    // Longer than a busy machine keeps a relay from its work, and much shorter than the age of the events.
    const { relay, causes } = watch({ backlogMaxMs: 5_000 });
    await trusting(relay);
    await db('gencache_authority').update({ changed_at: db.raw(`changed_at - interval '2 hours'`) });
    for (let round = 0; round < 5; round++) {
      // As by a transaction that recorded its event an hour before its COMMIT.
      await db('gencache_outbox').insert({
        ...{ cache, path: 'item=1', source: 'item', operation: 'UPDATE' },
        recorded_at: db.raw(`now() - interval '1 hour'`),
      });
      await drained();
      await polls(relay, 1);
    }
    await polls(relay, 2);
    expect(relay.status.events).to.equal(5);
    expect(causes).to.deep.equal(['first']);
  });

  it('does not bump global when its own pause is longer than the limit', async () => {
    const { relay, causes } = watch({ pollMs: 600, maxStalenessMs: 60_000, backlogMaxMs: 300 });
    await trusting(relay);
    for (let round = 1; round <= 3; round++) {
      await polls(relay, 1);
      await sleep(30);
      await record(1);
      await drained();
    }
    await polls(relay, 1);
    expect(relay.status.events).to.equal(3);
    expect(causes).to.deep.equal(['first']);
  });

  it('never bumps global for a backlog with a limit of 0', async () => {
    const { relay, causes } = watch({ backlogMaxMs: 0 });
    await trusting(relay);
    const bumps = await mint(['', 'item=0']);
    await outage([relay], async () => {
      await record(1);
      await age();
    });
    await drained();
    expect(causes).to.deep.equal(['first']);
    expect(await bumps()).to.deep.equal([0, 1]);
  });

  describe('that has just begun', () => {
    /** An outbox that a relay has left, with events of which the oldest waits for an hour. */
    beforeEach(async () => {
      const { relay } = watch();
      await trusting(relay);
      await relay.stop();
      await record(3);
      await age();
    });

    it('bumps global once before an old backlog, with the default limit', async () => {
      const bumps = await mint(['', 'item=0']);
      const giveBack = await claimAll();
      const { relay, causes } = watch({ backlogMaxMs: 30_000 });
      await trusting(relay);
      expect(causes).to.deep.equal(['backlog']);
      expect(await bumps()).to.deep.equal([1, 0]);
      await giveBack();
      await drained();
      expect(await bumps()).to.deep.equal([1, 1]);
    });

    it('does not bump global for events that wait for no longer than the limit', async () => {
      await db('gencache_outbox').update({ recorded_at: db.raw(`now() - interval '20 seconds'`) });
      const { relay, causes } = watch({ backlogMaxMs: 30_000 });
      await drained();
      await polls(relay, 2);
      expect(causes).to.deep.equal([]);
    });

    it('does not bump global for a backlog that another relay’s repair covers', async () => {
      const giveBack = await claimAll();
      const first = watch();
      await trusting(first.relay);
      const second = watch();
      await trusting(second.relay);
      await first.relay.stop();
      await sleep(2 * LIMIT_MS);
      const third = watch();
      await trusting(third.relay);
      expect([first, second, third].map(({ causes }) => causes)).to.deep.equal([['backlog'], [], []]);
      expect(await waiting()).to.equal(3);
      await giveBack();
      await drained();
    });

    it('bumps global for a backlog once when several relays begin together', async () => {
      const bumps = await mint(['']);
      const giveBack = await claimAll();
      const relays = Array.from({ length: 4 }, () => watch());
      for (const { relay } of relays) await trusting(relay);
      await Promise.all(relays.map(({ relay }) => polls(relay, 5)));
      const causes = relays.flatMap((each) => each.causes);
      expect(causes.filter((cause) => cause === 'backlog')).to.have.length(1);
      // A relay that looks between the new epoch and its mark repairs as well.
      for (const cause of causes) expect(cause).to.be.oneOf(['backlog', 'mark']);
      expect((await bumps())[0]).to.equal(causes.length);
      await giveBack();
      await drained();
    });
  });

  it('bumps global once when two relays come back together', async () => {
    const relays = [watch(), watch()];
    for (const { relay } of relays) await trusting(relay);
    for (const { causes } of relays) causes.length = 0;
    const bumps = await mint(['', 'item=0']);
    await outage(
      relays.map(({ relay }) => relay),
      () => record(5),
    );
    await drained();
    await Promise.all(relays.map(({ relay }) => polls(relay, 8)));
    const causes = relays.flatMap((each) => each.causes);
    expect(causes.filter((cause) => cause === 'backlog')).to.have.length(1);
    expect((await bumps())[0]).to.equal(causes.length);
    expect((await bumps())[1]).to.be.at.least(1);
  });
});
