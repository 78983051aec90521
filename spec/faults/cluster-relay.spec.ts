/**
 * A relay on a Redis Cluster, for a cache with one partition: the bound and the repairs of docs/protocol.md, rules 9 and 10,
 * where the partition's primary changes.
 */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, integer } from '../../lib/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { privateRedisCluster, type RedisCluster, waitUntil } from '../support/redis-cluster.js';
import { uniqueName } from '../support/redis.js';
import { lendOutbox, lendRelay } from '../support/relay.js';

const BOUND_MS = 3_000;

describe('a relay on a Redis Cluster', function () {
  // An election may take several rounds.
  this.timeout(120_000);

  let cluster: RedisCluster;
  let db: Knex;
  let name: string;

  before(async function () {
    this.timeout(120_000);
    cluster = await privateRedisCluster();
  });

  beforeEach(async () => {
    name = uniqueName();
    db = await lendOutbox();
    await db.schema.createTable('item', (table) => {
      table.integer('id').primary();
      table.integer('version').notNullable();
    });
    await db('item').insert({ id: 1, version: 1 });
  });

  function lendProcess(boundMs?: number) {
    const cache = new GenerationalCache({
      ...{ name, store: redisStore(cluster.client(), { partitions: 1 }), source: knexSource(db) },
      ...{ ttlMs: 600_000, readDeadlineMs: 300, breakerRetryMs: 100 },
      ...(boundMs !== undefined && { maxStalenessMs: boundMs }),
    });
    lend({ what: 'a cache', close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const entry = items.one<{ id: number; version: number }, number>('version', {
      load: async (ids, context) => context.db('item').whereIn('id', ids.map(({ item }) => item)), // prettier-ignore
      by: ({ id }) => ({ item: id }),
      value: ({ version }) => version,
    });
    const ids = { item: 1 };
    return {
      ...{ cache, items },
      fetch: () => entry.fetch(ids),
      outcome: async () => (await entry.lookup(ids)).outcome,
      hitting: () =>
        eventually(async () => {
          await entry.fetch(ids);
          await cache.settled();
          expect((await entry.lookup(ids)).outcome).to.equal('hit');
        }),
      change: (version: number) =>
        cache.transaction(async (trx) => {
          await trx('item').where({ id: 1 }).update({ version });
          await items.bump(ids, { trx });
        }),
    };
  }

  function lendWatchedRelay() {
    const store = redisStore(cluster.client(), { partitions: 1 });
    const relay = lendRelay({ db, cache: name, store, maxStalenessMs: BOUND_MS });
    const repairs: string[] = [];
    relay.on('repair', ({ cause }) => repairs.push(cause));
    return { relay, repairs };
  }

  it('relays events, and keeps the bound of readers', async () => {
    const { relay } = lendWatchedRelay();
    const reader = lendProcess(BOUND_MS);
    await reader.hitting();
    // Another writer, which does not bump by itself.
    await db.transaction(async (trx) => {
      await trx('item').where({ id: 1 }).update({ version: 2 });
      await trx('gencache_outbox').insert({ cache: name, path: 'item=1', source: 'spec', operation: 'bump' });
    });
    await eventually(async () => expect(await reader.fetch()).to.equal(2));
    await reader.hitting();
    expect(relay.status.trusted).to.equal(true);
  });

  it('repairs a slot that has moved to another primary', async () => {
    const { repairs } = lendWatchedRelay();
    const reader = lendProcess(BOUND_MS);
    await reader.hitting();
    repairs.length = 0;
    await (await cluster.reshard(keyPrefix(name))).all();
    await eventually(() => expect(repairs).to.deep.equal(['store']));
    await reader.hitting();
    expect((await reader.change(2)).bump).to.equal('done');
    expect(await reader.fetch()).to.equal(2);
    await reader.hitting();
  });

  it('repairs a replica that was promoted and missed a bump, and until then no reader with a bound hits', async function () {
    this.timeout(120_000);
    const { repairs } = lendWatchedRelay();
    const bounded = lendProcess(BOUND_MS);
    const unbounded = lendProcess();
    for (const reader of [bounded, unbounded]) await reader.hitting();
    const primary = await cluster.owner(keyPrefix(name));
    const replica = cluster.partnerOf(primary);
    await waitUntil(async () => (await primary.admin.wait(1, 1_000)) === 1, 'The replica has not caught up');
    repairs.length = 0;

    replica.server.pause();
    // A replica that stands still reads later what its socket has got; its primary closes that connection.
    await primary.admin.call('CLIENT', 'KILL', 'TYPE', 'replica');
    const key = generationKey(keyPrefix(name), 'item=1');
    expect((await unbounded.change(2)).bump).to.equal('done');
    const changedMs = performance.now();
    await eventually(async () => expect((await db('gencache_outbox').where({ cache: name })).length).to.equal(0));
    const bumped = await primary.admin.get(key);
    expect(bumped).to.match(/^1\./);
    await primary.server.kill('SIGKILL');
    replica.server.resume();
    const promoted = waitUntil(async () => {
      if ((await replica.role()) === 'master') return true;
      await replica.cluster('FAILOVER', 'TAKEOVER').catch(() => {});
      return false;
    }, 'The replica was not promoted');
    // No value is older than the bound, relay or not.
    while (repairs.length === 0) {
      const beganMs = performance.now();
      const version = await bounded.fetch();
      if (beganMs - changedMs > BOUND_MS || repairs.length > 0) expect(version).to.equal(2);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await promoted;
    expect(repairs).to.deep.equal(['store']);
    expect(await replica.admin.get(key), 'the generation of the promoted replica').to.match(/^0\./);
    for (const reader of [bounded, unbounded]) {
      expect(await reader.fetch()).to.equal(2);
      await reader.hitting();
      expect(await reader.fetch()).to.equal(2);
    }
    await primary.server.restart();
    await cluster.formed();
  });
});
