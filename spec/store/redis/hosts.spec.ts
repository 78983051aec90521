/**
 * Redis as hosts offer it (`spec/support/redis-hosts.ts`): the steps of the ladder that work on each, and the warnings of a
 * cache at start-up about those that do not.
 */
import { expect } from 'chai';
import { redisStore } from '../../../lib/store/redis/index.js';
import { AskedStore } from '../../ports/asked-store.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { startProxy } from '../../support/proxy.js';
import { type LendRedisOptions, lendRedis, privateRedis, uniqueName } from '../../support/redis.js';
import { HOSTS, refusing, REPLICA_OF_DRAGONFLY } from '../../support/redis-hosts.js';
import { rejection } from '../../support/rejection.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { createItems, openShop } from '../../support/shop.js';
import type { RedisServer } from '../../support/servers/redis-server.js';

const BOUND_MS = 60_000;

/** Steps 0, 1, 2, the relay of steps 2 and 3, 4b and 4a. */
const ALL = { read: 'hit', bump: 'done', transaction: 'done', relay: 'trusted', strict: 'kept', bounded: 'hit' };
const WITHOUT_RELAY = { ...ALL, relay: 'failed', bounded: 'not_fresh' };

const NO_MAXMEMORY = /^Redis has no maxmemory: /;
const UNKNOWN_INCARNATION =
  'Redis did not tell its run_id and master_replid, by which relays and caches with maxStalenessMs notice that Redis went ' +
  'back in time. No relay bumps there, and such a cache reads the source; steps 0 and 1 need neither. Let the user run ' +
  'INFO, also inside scripts.';
const CONNECT_TO_PRIMARY = 'Connect to the primary: a replica has old generations.';
const UNCHECKED = `its role and its eviction policy are unchecked. ${CONNECT_TO_PRIMARY}`;
const UNTOLD_POLICY = 'Redis did not tell its eviction policy: what a full Redis costs is unchecked.';

const EXPECTED: Readonly<
  Record<keyof typeof HOSTS, { readonly works: typeof ALL; readonly warns?: readonly (string | RegExp)[] }>
> = {
  'that is Redis': { works: ALL },
  'that does not know INFO': {
    works: WITHOUT_RELAY,
    warns: [
      `Redis refuses INFO (ERR unknown command 'info', with args beginning with: ): ${UNCHECKED}`,
      UNKNOWN_INCARNATION,
    ],
  },
  'that forbids INFO': {
    works: WITHOUT_RELAY,
    warns: [
      `Redis refuses INFO (NOPERM this user has no permissions to run the 'info' command): ${UNCHECKED}`,
      UNKNOWN_INCARNATION,
    ],
  },
  'like Dragonfly': { works: WITHOUT_RELAY, warns: [/^Redis has the policy eviction: /, UNKNOWN_INCARNATION] },
  'like Garnet': {
    works: ALL,
    warns: [UNTOLD_POLICY],
  },
  'with few sections in INFO': {
    works: WITHOUT_RELAY,
    warns: [`Redis did not tell whether it is a primary. ${CONNECT_TO_PRIMARY}`, UNTOLD_POLICY, UNKNOWN_INCARNATION],
  },
  'that refuses INFO in scripts': { works: WITHOUT_RELAY },
  'that refuses TIME in scripts': { works: { ...WITHOUT_RELAY, read: 'miss', strict: 'QUARANTINE' } },
  'that refuses TIME': { works: WITHOUT_RELAY },
  'that refuses scripts': {
    works: {
      ...{ read: 'store_failure', bump: 'BUMP', transaction: 'pending' },
      ...{ relay: 'failed', strict: 'QUARANTINE', bounded: 'not_fresh' },
    },
  },
  'that forgets each script': { works: ALL },
  'that has no HELLO': { works: ALL },
  'that has RESP2 alone': { works: ALL },
  'that refuses all other commands': { works: ALL },
};

describe('a Redis of a host', () => {
  let server: RedisServer;

  before(async () => {
    server = await privateRedis({ for: 'suite' });
  });

  for (const [title, { works, warns = [NO_MAXMEMORY] }] of Object.entries(EXPECTED)) {
    it(`${title}, ${served(works)}`, async () => {
      const { url } = await startProxy(server.port, { host: HOSTS[title as keyof typeof HOSTS] });
      const db = await itemsIn();
      const shop = openShop(db, { redis: url });
      const warned: string[] = [];
      shop.cache.on('warning', ({ message }) => warned.push(message));
      const set = (price: number, strict: boolean) => shop.set(price, { strict }).catch(codeOf);

      await shop.warm();
      const read = await shop.outcome();
      const bump = await shop.items.bump({ item: 1 }).then(
        () => 'done',
        (error) => codeOf(error).bump,
      );
      const written = await set(1, false);
      const relay = lendRelay({ cache: shop.name, db, url, maxStalenessMs: BOUND_MS });
      let trusted = 0;
      relay.on('poll', (poll) => (trusted += poll.trusted ? 1 : 0));
      // The first check repairs, the second one renews.
      await eventually(() => expect(relay.status.failures > 0 || trusted >= 2).to.equal(true));
      const relaying = relay.status.failures > 0 ? 'failed' : 'trusted';
      const committed = await set(2, true);
      const bounded = openShop(db, { name: shop.name, redis: url, maxStalenessMs: BOUND_MS });
      await bounded.warm();

      expect({
        ...{ read, bump, transaction: written.bump, relay: relaying },
        ...{ strict: committed.strict, bounded: await bounded.outcome() },
      }).to.deep.equal(works);
      expect(await bounded.warm()).to.equal(committed.strict === 'kept' ? 2 : 1);
      expect(warned).to.have.length(warns.length);
      for (const [i, warning] of warns.entries()) {
        if (typeof warning === 'string') expect(warned[i]).to.equal(warning);
        else expect(warned[i]).to.match(warning);
      }
    });
  }

  it('that calls itself a replica, as Dragonfly does, is left', async () => {
    const { url } = await startProxy(server.port, { host: REPLICA_OF_DRAGONFLY });
    const { price, cache } = openShop(await itemsIn(), { redis: url });
    const failures: string[] = [];
    cache.on('storeFailure', ({ error }) => failures.push(error.message));
    await eventually(async () => {
      await price.fetch({ item: 1 });
      expect(failures.join(' ')).to.contain('The Redis server is a replica');
    });
    expect(cache.statistics.total('misses')).to.equal(0);
  });

  // By default ioredis 5 sends no HELLO.
  if (process.env['IOREDIS'] !== '5') {
    it('that refuses HELLO in words of its own, is served with the option protocol: 2', async () => {
      const { url } = await startProxy(server.port, { host: refusing(/^hello$/i, () => 'ERR no such thing') });
      const opened = (options: LendRedisOptions) => {
        const store = redisStore(lendRedis({ url, lazyConnect: true, ...options }));
        lend({ what: 'the store', close: () => store.close() });
        return new AskedStore(store, uniqueName(), 500);
      };
      expect((await rejection(opened({ protocol: 3 }).connected())).message).to.contain('ERR no such thing');
      await opened({ protocol: 2 }).connected();
    });
  }
});

/** The end of a title: `serves all but read, strict`. */
function served(works: typeof ALL): string {
  const lost = Object.entries(ALL).flatMap(([what, result]) =>
    works[what as keyof typeof ALL] === result ? [] : [what],
  );
  return lost.length === 0 ? 'serves each step' : `serves all but ${lost.join(', ')}`;
}

async function itemsIn() {
  const db = await lendOutbox();
  await createItems(db);
  return db;
}

function codeOf(error: { code: string }) {
  return { bump: error.code, strict: error.code };
}
