/**
 * A relay on a Redis Cluster: the bound and the repairs of docs/protocol.md, rules 9 to 10a, where the primary of a partition
 * changes, or is away.
 */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, integer } from '../../lib/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { generationKey, keyPrefix, partitionOf } from '../../lib/model/key.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { privateRedisCluster, type RedisCluster, type RedisNode, waitUntil } from '../support/redis-cluster.js';
import { uniqueName } from '../support/redis.js';
import { lendOutbox, lendRelay } from '../support/relay.js';

const BOUND_MS = 3_000;
const ITEMS = Array.from({ length: 24 }, (_, i) => i + 1);

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
    await db('item').insert(ITEMS.map((id) => ({ id, version: 1 })));
  });

  /** The prefix of the keys of an item. */
  const prefixOf = (partitions: number, item = 1) =>
    keyPrefix(name, partitionOf(`item=${item}`, partitions), partitions);

  function lendProcess(partitions: number, boundMs?: number) {
    const cache = new GenerationalCache({
      ...{ name, store: redisStore(cluster.client(), { partitions }), source: knexSource(db) },
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
      ...{ cache, items, entry },
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

  function lendWatchedRelay(partitions: number) {
    const store = redisStore(cluster.client(), { partitions });
    const relay = lendRelay({ db, cache: name, store, maxStalenessMs: BOUND_MS });
    const repairs: string[] = [];
    const repaired = new Set<string>();
    relay.on('repair', ({ cause, partitions: names = [] }) => {
      repairs.push(cause);
      for (const each of names) repaired.add(each);
    });
    return { relay, repairs, repaired };
  }

  for (const partitions of [1, 64]) {
    describe(`of a cache with ${partitions} ${partitions === 1 ? 'partition' : 'partitions'}`, () => {
      it('relays events, and keeps the bound of readers', async () => {
        const { relay } = lendWatchedRelay(partitions);
        const reader = lendProcess(partitions, BOUND_MS);
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
        const { repairs, repaired } = lendWatchedRelay(partitions);
        const reader = lendProcess(partitions, BOUND_MS);
        await reader.hitting();
        repairs.length = 0;
        repaired.clear();
        await (await cluster.reshard(prefixOf(partitions))).all();
        await eventually(() => expect(repairs).to.deep.equal(['store']));
        if (partitions > 1) expect([...repaired]).to.deep.equal([`${partitionOf('item=1', partitions)}/${partitions}`]);
        await reader.hitting();
        expect((await reader.change(2)).bump).to.equal('done');
        expect(await reader.fetch()).to.equal(2);
        await reader.hitting();
      });

      it('repairs a replica that was promoted and missed a bump, and until then no reader with a bound hits', async function () {
        this.timeout(120_000);
        const { repairs } = lendWatchedRelay(partitions);
        const bounded = lendProcess(partitions, BOUND_MS);
        const unbounded = lendProcess(partitions);
        for (const reader of [bounded, unbounded]) await reader.hitting();
        const primary = await cluster.owner(prefixOf(partitions));
        const replica = cluster.partnerOf(primary);
        await waitUntil(async () => (await primary.admin.wait(1, 1_000)) === 1, 'The replica has not caught up');
        repairs.length = 0;

        replica.server.pause();
        // A replica that stands still reads later what its socket has got; its primary closes that connection.
        await primary.admin.call('CLIENT', 'KILL', 'TYPE', 'replica');
        const key = generationKey(prefixOf(partitions), 'item=1');
        expect((await unbounded.change(2)).bump).to.equal('done');
        const changedMs = performance.now();
        await eventually(async () => expect((await db('gencache_outbox').where({ cache: name })).length).to.equal(0));
        const bumped = await primary.admin.get(key);
        expect(bumped).to.match(/^[12]\./);
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
  }

  describe('of a cache with 64 partitions', () => {
    const PARTITIONS = 64;
    const nameOf = (item: number) => `${partitionOf(`item=${item}`, PARTITIONS)}/${PARTITIONS}`;

    /** Another writer, which does not bump by itself. */
    const write = (version: number, ...items: number[]) =>
      db.transaction(async (trx) => {
        await trx('item').whereIn('id', items).update({ version });
        await trx('gencache_outbox').insert(
          items.map((item) => ({ cache: name, path: `item=${item}`, source: 'spec', operation: 'bump' })),
        );
      });

    /** The items of a primary, and those of the others. */
    async function split(primary: RedisNode) {
      const owners = await Promise.all(ITEMS.map((item) => cluster.owner(prefixOf(PARTITIONS, item))));
      return {
        its: ITEMS.filter((_, i) => owners[i] === primary),
        others: ITEMS.filter((_, i) => owners[i] !== primary),
      };
    }

    /**
     * Reads and writes while a primary is away, until `isOver`. Changes of the other items are hits within the bound, and no
     * reader of them bypasses; no value of any item is older than the bound.
     */
    async function judge(
      reader: ReturnType<typeof lendProcess>,
      { its, others }: Awaited<ReturnType<typeof split>>,
      isOver: () => boolean,
    ): Promise<number[]> {
      expect(its).to.not.equal([]);
      const versions = new Map(ITEMS.map((item) => [item, [{ version: 1, atMs: -Infinity }]]));
      let next = 2;
      let hits = 0;
      const change = async (items: number[]) => {
        const version = next++;
        await write(version, ...items);
        for (const item of items) versions.get(item)!.push({ version, atMs: performance.now() });
      };
      for (let round = 0; !isOver(); round++) {
        await change([ITEMS[round % ITEMS.length]!, ...its.slice(0, 1)]);
        const beganMs = performance.now();
        const read = await reader.entry.fetchMany(ITEMS.map((item) => ({ item })));
        for (const [i, item] of ITEMS.entries()) {
          const version = read[i];
          const promised = versions.get(item)!.findLast(({ atMs }) => atMs < beganMs - BOUND_MS)!;
          expect(version, `item ${item}, round ${round}`).to.be.at.least(promised.version);
        }
        await reader.cache.settled();
        for (const item of others) {
          const looked = await reader.entry.lookup({ item });
          if (looked.outcome === 'hit') hits++;
          expect(looked.outcome === 'bypass' ? looked.reason : 'none', `a bypass of item ${item}`).to.equal('none');
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      expect(hits).to.be.greaterThan(0);
      return ITEMS.map((item) => versions.get(item)!.at(-1)!.version);
    }

    async function hittingAll(reader: ReturnType<typeof lendProcess>) {
      for (const item of ITEMS) {
        await eventually(async () => {
          await reader.entry.fetch({ item });
          await reader.cache.settled();
          expect((await reader.entry.lookup({ item })).outcome).to.equal('hit');
        });
      }
    }

    const isSettled = () =>
      eventually(async () => {
        const left = await Promise.all(
          ['gencache_outbox', 'gencache_owed'].map((table) => db(table).where({ cache: name })),
        );
        expect(left).to.deep.equal([[], []]);
      });

    it('keeps the bound of the others while a primary is dead and its replica takes over, and repairs its partitions alone', async () => {
      const { relay, repairs, repaired } = lendWatchedRelay(PARTITIONS);
      const reader = lendProcess(PARTITIONS, BOUND_MS);
      await hittingAll(reader);
      const primary = await cluster.owner(prefixOf(PARTITIONS, 1));
      repairs.length = 0;
      repaired.clear();
      const items = await split(primary);
      await primary.server.kill('SIGKILL');
      const latest = await judge(reader, items, () => repairs.length > 0 && relay.status.trusted);
      await isSettled();
      expect(await reader.entry.fetchMany(ITEMS.map((item) => ({ item })))).to.deep.equal(latest);
      expect(new Set(repairs)).to.deep.equal(new Set(['store']));
      for (const item of items.its) expect(repaired.has(nameOf(item)), `item ${item} is repaired`).to.equal(true);
      for (const item of items.others) expect(repaired.has(nameOf(item)), `item ${item} is repaired`).to.equal(false);
      await hittingAll(reader);
      await primary.server.restart();
      await cluster.formed();
    });

    it('keeps the bound of the others while a primary stands still, and makes its bumps once it goes on', async () => {
      const { relay } = lendWatchedRelay(PARTITIONS);
      const reader = lendProcess(PARTITIONS, BOUND_MS);
      await hittingAll(reader);
      const primary = await cluster.owner(prefixOf(PARTITIONS, 1));
      // A node that stands still can't be asked.
      const items = await split(primary);
      // Its replica stands still as well, so no node takes over.
      const replica = cluster.partnerOf(primary);
      for (const { server } of [replica, primary]) server.pause();
      const overMs = performance.now() + 1.5 * BOUND_MS;
      let latest: number[];
      try {
        latest = await judge(reader, items, () => performance.now() > overMs);
        expect(relay.status.partitions?.untrusted).to.include.members(items.its.map(nameOf));
        expect(relay.status.partitions?.owing).to.include(nameOf(items.its[0]!));
      } finally {
        for (const { server } of [primary, replica]) server.resume();
      }
      await isSettled();
      expect(await reader.entry.fetchMany(ITEMS.map((item) => ({ item })))).to.deep.equal(latest);
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      await hittingAll(reader);
      await cluster.formed();
    });

    it('repairs a slot that moved from a promoted replica which had missed a bump, all while no relay looked', async () => {
      const first = lendWatchedRelay(PARTITIONS);
      const reader = lendProcess(PARTITIONS);
      await hittingAll(reader);
      const primary = await cluster.owner(prefixOf(PARTITIONS, 1));
      const replica = cluster.partnerOf(primary);
      await waitUntil(async () => (await primary.admin.wait(1, 1_000)) === 1, 'The replica has not caught up');
      replica.server.pause();
      await primary.admin.call('CLIENT', 'KILL', 'TYPE', 'replica');
      await write(2, 1);
      await isSettled();
      const key = generationKey(prefixOf(PARTITIONS), 'item=1');
      expect(await primary.admin.get(key)).to.match(/^1\./);
      await first.relay.stop();
      await primary.server.kill('SIGKILL');
      replica.server.resume();
      await waitUntil(async () => {
        if ((await replica.role()) === 'master') return true;
        await replica.cluster('FAILOVER', 'TAKEOVER').catch(() => {});
        return false;
      }, 'The replica was not promoted');
      expect(await replica.admin.get(key), 'the generation of the promoted replica').to.match(/^0\./);
      await primary.server.restart();
      await cluster.formed();
      // To a primary whose other partitions are as their rows and marks say.
      const resharding = await cluster.reshard(prefixOf(PARTITIONS));
      await resharding.all();
      expect(await resharding.target.admin.get(key)).to.match(/^0\./);
      const second = lendWatchedRelay(PARTITIONS);
      await eventually(() => expect(second.repaired.has(nameOf(1))).to.equal(true));
      expect(await reader.entry.fetch({ item: 1 })).to.equal(2);
    });
  });
});
