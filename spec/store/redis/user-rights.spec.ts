/**
 * The rights of the Redis user in docs/roles-and-schemas.md: with those of a step of the ladder the step works, on a Redis
 * Cluster too, and without any single one the operation that its table names fails.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import type { Knex } from 'knex';
import { GenerationalCache, integer, type PartitionedStore, type Store } from '../../../lib/index.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { formatGeneration, nonce } from '../../../lib/model/generation.js';
import { freshnessKey, keyPrefix } from '../../../lib/model/key.js';
import { AskedStore } from '../../ports/asked-store.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { lendRedis, privateRedis } from '../../support/redis.js';
import { privateRedisCluster, type RedisCluster } from '../../support/redis-cluster.js';
import { rejection } from '../../support/rejection.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { createItems, openShop } from '../../support/shop.js';

const DOCUMENT = readFileSync(join(import.meta.dirname, '../../../docs/roles-and-schemas.md'), 'utf8');
const SECTION = DOCUMENT.slice(DOCUMENT.indexOf('## The user of Redis'), DOCUMENT.indexOf('## An outbox in a schema'));
/** Of the block: `+mget +get ...`. */
const GRANTED = /const commands = '([^']+)'/
  .exec(SECTION)![1]!
  .split(' ')
  .map((right) => right.slice(1));
/** Of the tables: each right, and the step from which it is needed. */
const TABLE = new Map(
  [...SECTION.matchAll(/^\| `([^`]+)` +\| (\S+)/gm)].map(([, right, step]) => [right!.replace('\\', ''), step!]),
);
const OF_CLUSTER = ['cluster|slots', 'asking'];
/** Of the block on reads without a round trip: `+client|id ... &__redis__:invalidate`. */
const OF_TRACKING = /const tracking = '([^']+)'/.exec(SECTION)![1]!.split(' ');
const KEYS_OF_TRACKING = ['h:*'];

const CACHE = 'shop';
const REFUSED = /NOPERM|no permissions|can't run this command|can't access|cannot access/i;
const BOUND_MS = 10_000;

/** An operation that needs one right. `prepare` runs with all of them. */
interface Need {
  readonly prepare?: (asked: AskedStore) => Promise<void>;
  readonly operation: (asked: AskedStore) => Promise<unknown>;
}

const foreign = async (asked: AskedStore) => {
  const key = asked.generationKey();
  await asked.plant(key, 'foreign');
  return key;
};
const fill = async (asked: AskedStore, guardTtlMs = 60_000) => {
  const { key, token } = await asked.minted();
  await asked.fill([{ key, token, ttlMs: guardTtlMs }], {
    ...{ key: asked.entryKey(), bytes: Buffer.from('value'), ttlMs: 60_000, guards: [0] },
  });
};
const renew = async (asked: AskedStore) => {
  const untilMs = (await asked.timeMs()) + BOUND_MS / 2;
  return asked.renew({ keys: [{ key: asked.freshnessKey(BOUND_MS), untilMs }] });
};
const quarantined = async (asked: AskedStore) => {
  const { key } = await asked.minted();
  await asked.quarantine([key]);
  return key;
};

const COMMANDS: Readonly<Record<string, Need>> = {
  mget: { operation: (asked) => asked.read(asked.entryKey()) },
  get: { operation: (asked) => asked.readMark() },
  set: { operation: (asked) => asked.minted() },
  del: { operation: (asked) => asked.bump([asked.generationKey()]) },
  unlink: { operation: (asked) => asked.delete(asked.entryKey()) },
  type: { operation: (asked) => fill(asked) },
  pttl: { operation: async (asked) => asked.bump([(await asked.minted()).key]) },
  pexpire: { operation: (asked) => fill(asked, 200_000) },
  pexpireat: { operation: async (asked) => asked.bump([await quarantined(asked)]) },
  time: { operation: (asked) => asked.timeMs() },
  info: { operation: (asked) => asked.repair() },
  eval: { operation: (asked) => asked.minted() },
  evalsha: { prepare: async (asked) => void (await asked.minted()), operation: (asked) => asked.minted() },
};

const KEYS: Readonly<Record<string, Need>> = {
  'g:*': { operation: (asked) => asked.minted() },
  'e:*': { operation: (asked) => asked.read(asked.entryKey()) },
  'l:*': { operation: (asked) => asked.claim([], [{ key: asked.entryKey(), guards: [] }]) },
  'f:*': { prepare: (asked) => asked.timeMs().then(() => asked.repair()), operation: renew },
  m: { operation: (asked) => asked.repair() },
  d: { operation: (asked) => asked.demand(BOUND_MS) },
};

/** The steps that have rights of their own. */
const STEPS = ['0', '1', '2', '4a', '4b'] as const;
type RightsStep = (typeof STEPS)[number];

/** The steps below, whose operations a step needs too. */
const BELOW: Readonly<Record<RightsStep, readonly RightsStep[]>> = {
  '0': [],
  '1': ['0'],
  '2': ['0', '1'],
  '4a': ['0', '1', '2'],
  '4b': ['0', '1', '2'],
};

/** What a step adds to those below, on a store that `open` opens. */
const WORK: Readonly<Record<RightsStep, (on: { db: Knex; open: () => Store | PartitionedStore }) => Promise<void>>> = {
  async '0'({ db, open }) {
    const shop = openShop(db, { name: CACHE, store: open() });
    expect(await shop.warm()).to.be.a('number');
    expect(await shop.outcome()).to.equal('hit');
  },
  async '1'({ db, open }) {
    const shop = openShop(db, { name: CACHE, store: open() });
    await shop.warm();
    await shop.items.bump({ item: 1 });
    expect(await shop.outcome()).to.equal('miss');
    await shop.warm();
    await shop.price.delete({ item: 1 });
    expect(await shop.outcome()).to.equal('miss');
  },
  async '2'({ db, open }) {
    const shop = openShop(db, { name: CACHE, store: open() });
    await shop.warm();
    expect(await shop.set(2)).to.include({ bump: 'done' });
    const relay = lendRelay({ cache: CACHE, db, store: open() });
    // As a trigger does.
    await db('item').update({ price: 3 });
    await db('gencache_outbox').insert({ cache: CACHE, path: 'item=1', source: 'item', operation: 'UPDATE' });
    await eventually(() => expect(relay.status.events).to.be.above(0));
    expect(await shop.warm()).to.equal(3);
    await relay.stop();
  },
  async '4a'({ db, open }) {
    const shop = openShop(db, { name: CACHE, store: open(), maxStalenessMs: BOUND_MS });
    await eventually(async () => expect(await shop.outcome()).to.equal('not_fresh'));
    const relay = lendRelay({ cache: CACHE, db, store: open(), maxStalenessMs: BOUND_MS });
    await eventually(async () => {
      await shop.warm();
      expect(await shop.outcome()).to.equal('hit');
    });
    await relay.stop();
  },
  async '4b'({ db, open }) {
    const shop = openShop(db, { name: CACHE, store: open() });
    await shop.warm();
    expect(await shop.set(4, { strict: true })).to.include({ bump: 'done', strict: 'kept' });
  },
};

/** The rights of a step: its own, and those of the steps below. */
function rightsOf(step: RightsStep, of: readonly string[]): string[] {
  return of.filter((right) => [step, ...BELOW[step]].includes(TABLE.get(right) as RightsStep));
}

/** `further`: rights as ACL SETUSER takes them. */
function allowOn(
  admin: Redis,
  commands: readonly string[],
  keys: readonly string[],
  further: readonly string[] = [],
): Promise<unknown> {
  return admin.call(
    ...(['acl', 'setuser', 'shop', 'reset', 'resetchannels', 'on', '>secret'] as const),
    ...keys.map((key) => `~${keyPrefix(CACHE)}${key}`),
    ...commands.map((command) => `+${command}`),
    ...further,
  );
}

/**
 * What Redis has refused. ioredis tells its name at each connection, and it goes on when that is refused, as a cache does
 * without INFO. Redis 6.2 notes CLIENT; later ones note CLIENT SETINFO if they have it.
 */
async function refusedBy(admin: Redis, ...without: readonly string[]): Promise<unknown[]> {
  const refused = (await admin.call('acl', 'log')) as unknown[][];
  const objects = refused.map((fields) => fields[fields.indexOf('object') + 1]);
  return objects.filter((object) => !['client', 'client|setinfo', ...without].includes(String(object)));
}

/** A Redis of a suite, and the address of it that the user has. */
async function lendUser(): Promise<{ admin: Redis; url: string }> {
  const { url } = await privateRedis({ for: 'suite' });
  return { admin: lendRedis({ url, for: 'suite' }), url: url.replace('redis://', 'redis://shop:secret@') };
}

describe('the user of Redis in docs/roles-and-schemas.md', () => {
  let admin: Redis;
  let url: string;

  before(async () => ({ admin, url } = await lendUser()));

  const allow = (commands: readonly string[], keys: readonly string[]) => allowOn(admin, commands, keys);
  const lendStore = () => {
    const store = redisStore(lendRedis({ url, lazyConnect: true }));
    lend({ what: 'the store', close: () => store.close() });
    return new AskedStore(store, CACHE);
  };
  const withAll = async () => {
    await admin.flushall();
    await allow(GRANTED, ['*']);
    return lendStore();
  };

  it('has the commands of the table, and a spec each', () => {
    expect([...GRANTED].sort()).to.deep.equal(Object.keys(COMMANDS).sort());
    expect([...TABLE.keys()].sort()).to.deep.equal(
      [
        ...[...Object.keys(COMMANDS), ...Object.keys(KEYS), ...OF_CLUSTER, ...KEYS_OF_TRACKING],
        ...OF_TRACKING.map((right) => right.replace('+', '')),
      ].sort(),
    );
  });

  it('needs no other command for any operation of a store', async () => {
    const asked = await withAll();
    for (const { prepare, operation } of [...Object.values(COMMANDS), ...Object.values(KEYS)]) {
      await prepare?.(asked);
      await operation(asked);
    }
    const key = await quarantined(asked);
    expect(await asked.lift([key], nonce())).to.deep.equal(['lapsed']);
    expect(await asked.lift([await foreign(asked)], nonce())).to.deep.equal(['lapsed']);
    await asked.bump([await foreign(asked)]);
    expect(await refusedBy(admin)).to.deep.equal([]);
  });

  for (const [command, { prepare, operation }] of Object.entries(COMMANDS)) {
    it(`needs ${command}`, async () => {
      const asked = await withAll();
      await prepare?.(asked);
      const without = GRANTED.filter((granted) => granted !== command);
      await asked.timeMs(); // connected
      await allow(without, ['*']);
      const error = await rejection(operation(asked));
      expect(error.message).to.match(REFUSED);
    });
  }

  for (const [pattern, { prepare, operation }] of Object.entries(KEYS)) {
    it(`needs the keys ${pattern}`, async () => {
      const asked = await withAll();
      await prepare?.(asked);
      await asked.timeMs();
      await allow(
        GRANTED,
        Object.keys(KEYS).filter((granted) => granted !== pattern),
      );
      const error = await rejection(operation(asked));
      expect(error.message).to.match(REFUSED);
    });
  }

  it('may have the keys of the table alone', async () => {
    const asked = await withAll();
    await allow(GRANTED, Object.keys(KEYS));
    for (const { operation } of [...Object.values(COMMANDS), ...Object.values(KEYS)]) await operation(asked);
    expect(await asked.text(freshnessKey(keyPrefix(CACHE), BOUND_MS))).to.not.equal(undefined);
    expect(await asked.mint([asked.generationKey()], formatGeneration(0, nonce()))).to.have.length(1);
  });

  for (const step of STEPS) {
    it(`has all rights of step ${step}`, async () => {
      await admin.flushall();
      await admin.call('acl', 'log', 'reset');
      await allow(rightsOf(step, GRANTED), rightsOf(step, Object.keys(KEYS)));
      const db = await lendOutbox();
      await createItems(db);
      for (const one of [...BELOW[step], step]) {
        await WORK[one]({ db, open: () => redisStore(lendRedis({ url, lazyConnect: true })) });
      }
      expect(await refusedBy(admin, ...(rightsOf(step, GRANTED).includes('info') ? [] : ['info']))).to.deep.equal([]);
    });
  }
});

describe('the user of Redis in docs/roles-and-schemas.md, for reads without a round trip', () => {
  let admin: Redis;
  let url: string;

  before(async () => ({ admin, url } = await lendUser()));

  beforeEach(() => admin.call('acl', 'log', 'reset'));

  /** A process with the rights of step 0 and of tracking, but for one. */
  async function lendReader(without?: string) {
    const commands = [...rightsOf('0', GRANTED), 'info'].filter((right) => right !== without);
    const keys = [...rightsOf('0', Object.keys(KEYS)), ...KEYS_OF_TRACKING].filter((key) => key !== without);
    await allowOn(
      admin,
      commands,
      keys,
      OF_TRACKING.filter((right) => right !== without),
    );
    const store = redisStore(lendRedis({ url, lazyConnect: true }));
    const local = { mode: 'track', maxEntries: 10, heartbeatMs: 60_000 } as const;
    const cache = new GenerationalCache({ name: CACHE, store, local, readDeadlineMs: 5_000 });
    lend({ what: 'the cache', close: () => cache.close() });
    const warnings: string[] = [];
    cache.on('warning', ({ message }) => message.includes('does not tell changes') && warnings.push(message));
    const value = cache.namespace('item', integer()).value('value', { load: () => 1 });
    const read = async () => {
      await value.fetch({ item: 1 });
      await cache.settled();
    };
    await read();
    return { cache, warnings, read, peek: () => value.peek({ item: 1 }) };
  }

  it('has all rights that these need', async () => {
    const { read, peek, warnings } = await lendReader();
    await eventually(async () => {
      await read();
      expect(peek()).to.equal(1);
    });
    expect(warnings).to.deep.equal([]);
    expect(await refusedBy(admin)).to.deep.equal([]);
  });

  for (const without of [...OF_TRACKING, ...KEYS_OF_TRACKING, 'info']) {
    it(`gets verified reads and one warning without ${without}`, async () => {
      const { cache, read, peek, warnings } = await lendReader(without);
      await eventually(() => expect(warnings).to.have.length(1));
      expect(warnings[0]).to.match(without === 'info' ? /Let the user run INFO/ : REFUSED);
      const before = cache.statistics.total('local_hits');
      for (let round = 0; round < 3; round++) await read();
      expect(cache.statistics.total('local_hits') - before).to.equal(3);
      expect(peek()).to.equal(undefined);
      expect(cache.statistics.total('tracked_hits')).to.equal(0);
      expect(warnings).to.have.length(1);
    });
  }
});

describe('the user of a Redis Cluster in docs/roles-and-schemas.md', () => {
  let cluster: RedisCluster;

  before(async () => {
    cluster = await privateRedisCluster({ replicas: 0, for: 'suite' });
  });

  const allow = (commands: readonly string[]) =>
    Promise.all(cluster.nodes.map(({ admin }) => allowOn(admin, commands, Object.keys(KEYS))));
  const open = () => {
    const client = cluster.client({ redisOptions: { username: 'shop', password: 'secret' } });
    const store = redisStore(client, { partitions: 1 });
    lend({ what: 'the store', close: () => store.close() });
    return store;
  };
  const asked = () => new AskedStore(open().partition(keyPrefix(CACHE)), CACHE);

  it('has all rights of every step', async () => {
    await allow([...GRANTED, ...OF_CLUSTER]);
    const db = await lendOutbox();
    await createItems(db);
    for (const step of STEPS) await WORK[step]({ db, open });
    for (const { admin } of cluster.nodes) expect(await refusedBy(admin, 'cluster|info')).to.deep.equal([]);
  });

  it('needs cluster|slots', async () => {
    await allow([...GRANTED, 'asking']);
    expect((await rejection(asked().read(asked().entryKey()))).message).to.match(REFUSED);
  });

  it('needs asking, for a bump while the slot is on its way', async () => {
    await allow([...GRANTED, ...OF_CLUSTER]);
    const store = asked();
    const { key } = await store.minted();
    const move = await cluster.reshard(key);
    await move.begin();
    await move.move(key);
    expect(await store.bump([key])).to.have.length(1);
    await allow([...GRANTED, 'cluster|slots']);
    expect((await rejection(store.bump([key]))).message).to.match(/NOPERM|not executed|redirected/);
    await move.rest();
    await move.end();
  });
});
