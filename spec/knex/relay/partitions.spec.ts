/**
 * A relay of a cache with four partitions, on two servers: A has the partitions 0 and 2, B has 1 and 3
 * (docs/protocol.md, rules 9a and 10a).
 */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, integer } from '../../../lib/index.js';
import { knexSource, type RelayOptions } from '../../../lib/knex/index.js';
import { PARTITIONED_RELAY_RIGHTS } from '../../../lib/knex/outbox/missing-rights.js';
import { freshnessKey, generationKey, keyPrefix, markKey, partitionOf } from '../../../lib/model/key.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { recordCommands } from '../../support/commands.js';
import { eventually } from '../../support/deferred.js';
import { lendKnex, lendProxied } from '../../support/knexes.js';
import { lend } from '../../support/lenders.js';
import { databaseUrl, schemaOf } from '../../support/postgres.js';
import { lendRedis, privateRedis, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { grantRights, lendRole } from '../../support/roles.js';
import type { RedisServer } from '../../support/servers/redis-server.js';
import { spread } from '../../support/stores.js';

const PARTITIONS = 4;
const BOUND_MS = 2_000;
const NAMES_OF_B = ['1/4', '3/4'];
/** A generation that no bump has given. */
const FIRST = `0.${'A'.repeat(16)}`;

/** Items whose scopes lie in each partition: one of A, one of B. */
const ofPartition = (partition: number) =>
  Array.from({ length: 100 }, (_, item) => item).find((item) => partitionOf(`item=${item}`, PARTITIONS) === partition)!;
const [IN_A, IN_B] = [ofPartition(0), ofPartition(1)];

describe('a relay of several partitions', function () {
  this.timeout(30_000);

  let db: Knex;
  let name: string;
  let a: RedisServer;
  let b: RedisServer;

  before(async () => {
    [a, b] = await Promise.all([privateRedis({ for: 'suite' }), privateRedis({ for: 'suite' })]);
  });

  beforeEach(async () => {
    db = await lendOutbox();
    name = uniqueName();
  });

  const prefixOf = (partition: number) => keyPrefix(name, partition, PARTITIONS);
  const serverOf = (partition: number) => (partition % 2 === 0 ? a : b);
  const valueOf = async (partition: number, key: string) => lendRedis({ url: serverOf(partition).url }).get(key);
  const globalOf = (partition: number) => valueOf(partition, generationKey(prefixOf(partition), ''));
  const generationOf = (item: number) => {
    const partition = partitionOf(`item=${item}`, PARTITIONS);
    return valueOf(partition, generationKey(prefixOf(partition), `item=${item}`));
  };
  const isFresh = async (partition: number) =>
    (await valueOf(partition, freshnessKey(prefixOf(partition), BOUND_MS))) !== null;

  const lendStore = () => {
    const stores = [a, b].map(({ url }) => redisStore(lendRedis({ url, lazyConnect: true, retryStrategy: () => 50 })));
    return spread(stores, PARTITIONS);
  };

  function lendWatchedRelay(options: Partial<RelayOptions> = {}) {
    const relay = lendRelay({ db, cache: name, store: lendStore(), bumpDeadlineMs: 500, ...options });
    const repairs: (readonly [cause: string, partition: string])[] = [];
    relay.on('repair', ({ cause, partitions = [] }) => {
      for (const partition of partitions) repairs.push([cause, partition]);
    });
    return { relay, repairs };
  }

  const trusting = (relay: { readonly status: { readonly trusted: boolean } }) =>
    eventually(() => expect(relay.status.trusted).to.equal(true));

  /** Gives each of these scopes a generation, as readers do. */
  async function mint(...items: number[]): Promise<void> {
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const client = lendRedis({ url: serverOf(partition).url });
      await client.set(generationKey(prefixOf(partition), ''), FIRST);
      for (const item of items) {
        if (partitionOf(`item=${item}`, PARTITIONS) === partition)
          await client.set(generationKey(prefixOf(partition), `item=${item}`), FIRST);
      }
    }
  }

  const record = (...paths: string[]) =>
    db('gencache_outbox').insert(paths.map((path) => ({ cache: name, path, source: 'spec', operation: 'bump' })));
  const events = () => db('gencache_outbox').where({ cache: name }).pluck<string[]>('path');
  const owed = () => db<{ partition: string; paths: string[] }>('gencache_owed').orderBy('partition').select('partition', 'paths'); // prettier-ignore

  it('claims and repairs each partition, relays, and renews the freshness keys of all', async () => {
    const { relay, repairs } = lendWatchedRelay({ maxStalenessMs: BOUND_MS });
    await trusting(relay);
    expect(repairs).to.have.deep.members(['0/4', '1/4', '2/4', '3/4'].map((partition) => ['first', partition]));
    await mint(IN_A, IN_B);
    await record(`item=${IN_A}`, `item=${IN_B}`);
    for (const item of [IN_A, IN_B]) await eventually(async () => expect(await generationOf(item)).to.match(/^1\./));
    await record('');
    for (const partition of [0, 1, 2, 3]) {
      await eventually(async () => expect(await globalOf(partition)).to.match(/^1\./));
      await eventually(async () => expect(await isFresh(partition)).to.equal(true));
    }
    await eventually(async () => expect([await events(), await owed()]).to.deep.equal([[], []]));
    expect(relay.status).to.include({ events: 3, failures: 0, trusted: true });
    expect(relay.status.partitions).to.deep.equal({ untrusted: [], owing: [] });
    const rows = await db('gencache_partition').orderBy('partition').select('partition', 'redis');
    for (const [partition, row] of rows.entries()) {
      expect(await valueOf(partition, markKey(prefixOf(partition)))).to.match(new RegExp(`^${row.redis} `));
    }
    expect(new Set(rows.map(({ redis }) => redis)).size).to.equal(2);
    expect(await db('gencache_authority')).to.deep.equal([]);
    // The connections that it closes itself say nothing about its servers.
    await relay.stop();
    expect(relay.status).to.include({ failures: 0, trusted: true });
  });

  it('checks by one query, one TIME on each server and one renewal of each partition', async () => {
    const { relay } = lendWatchedRelay({ maxStalenessMs: 4_000, pollMs: 50 });
    await trusting(relay);
    const surveys: string[] = [];
    const seen = ({ sql }: { sql: string }) => sql.includes('pg_current_snapshot') && surveys.push(sql);
    db.on('query', seen);
    const nextSurvey = async () => {
      const before = surveys.length;
      await eventually(() => expect(surveys.length).to.be.greaterThan(before));
    };
    await nextSurvey();
    const { commands } = await recordCommands(
      a.url,
      async () => {
        await nextSurvey();
        await nextSurvey();
      },
      { from: (command) => command[0] === 'TIME' || command.some((each) => each.includes(name)), keyless: true },
    );
    db.removeListener('query', seen);
    const kinds = commands.map(([command]) => command);
    const times = kinds.filter((kind) => kind === 'TIME').length;
    const renewals = kinds.filter((kind) => kind === 'EVALSHA').length;
    // The recording begins and ends anywhere in a check: partitions 0 and 2 are on this server.
    expect(times).to.be.within(1, 3);
    expect(renewals).to.be.within(2 * (times - 1), 2 * (times + 1));
  });

  describe('while one of two servers stands still', () => {
    afterEach(() => b.resume());

    it('keeps the bound of the others, and makes the bumps that are owed once it goes on, without a repair', async () => {
      const { relay, repairs } = lendWatchedRelay({ maxStalenessMs: BOUND_MS });
      await trusting(relay);
      await mint(IN_A, IN_B);
      for (const partition of [0, 1, 2, 3])
        await eventually(async () => expect(await isFresh(partition)).to.equal(true));
      repairs.length = 0;
      b.pause();
      const pausedMs = performance.now();
      await record(`item=${IN_A}`, `item=${IN_B}`, '');
      for (const partition of [0, 2]) await eventually(async () => expect(await globalOf(partition)).to.match(/^1\./));
      await eventually(async () => expect(await owed()).to.have.length(2));
      // For longer than the bound, each change reaches A, and A stays fresh.
      for (let n = 0; performance.now() - pausedMs < 1.5 * BOUND_MS; n++) {
        const before = await generationOf(IN_A);
        await record(`item=${IN_A}`);
        await eventually(async () => expect(await generationOf(IN_A)).to.not.equal(before), { withinMs: BOUND_MS });
        expect(await isFresh(0)).to.equal(true);
        expect(await isFresh(2)).to.equal(true);
      }
      expect(relay.status.trusted).to.equal(false);
      expect(relay.status.partitions).to.deep.equal({ untrusted: NAMES_OF_B, owing: NAMES_OF_B });
      b.resume();
      await trusting(relay);
      await eventually(async () => expect([await events(), await owed()]).to.deep.equal([[], []]));
      for (const partition of [1, 3]) expect(await globalOf(partition)).to.match(/^[12]\./);
      for (const partition of [1, 3]) await eventually(async () => expect(await isFresh(partition)).to.equal(true));
      expect(repairs).to.deep.equal([]);
    });

    it('shares the work with another relay, and each bump is made or owed', async () => {
      const relays = [lendWatchedRelay({ batchMax: 3 }), lendWatchedRelay({ batchMax: 3 })];
      for (const { relay } of relays) await trusting(relay);
      const items = Array.from({ length: 60 }, (_, item) => item);
      await mint(...items);
      b.pause();
      for (const item of items) await record(`item=${item}`);
      await eventually(async () => expect(await events()).to.deep.equal([]));
      const inB = items
        .filter((item) => partitionOf(`item=${item}`, PARTITIONS) % 2 === 1)
        .map((item) => `item=${item}`);
      const bumped = (await owed()).flatMap(({ paths }) => paths);
      expect([...new Set(bumped)].sort()).to.deep.equal([...inB].sort());
      b.resume();
      await eventually(async () => expect(await owed()).to.deep.equal([]));
      for (const item of items) expect(await generationOf(item), `item ${item}`).to.not.equal(FIRST);
    });

    it('repairs its partitions alone if it stood still for longer than the limit of a backlog', async () => {
      const { relay, repairs } = lendWatchedRelay({ backlogMaxMs: 500 });
      await trusting(relay);
      await mint(IN_A, IN_B);
      // The repair at the beginning covers nothing that is younger.
      await db('gencache_partition').update({ changed_at: db.raw(`changed_at - interval '2 hours'`) });
      repairs.length = 0;
      b.pause();
      await record(`item=${IN_B}`);
      await eventually(async () => expect(await owed()).to.deep.equal([{ partition: '1/4', paths: [`item=${IN_B}`] }]));
      const owedMs = performance.now();
      await eventually(() => expect(performance.now() - owedMs).to.be.greaterThan(2_500));
      b.resume();
      await eventually(() => expect(repairs).to.deep.equal([['backlog', '1/4']]));
      await eventually(async () => expect(await owed()).to.deep.equal([]));
      expect(await globalOf(1)).to.match(/^1\./);
      for (const partition of [0, 2, 3]) expect(await globalOf(partition)).to.equal(FIRST);
    });

    it('leaves the events of a transaction to the relay, and `bump` says `pending`', async () => {
      const { relay } = lendWatchedRelay({ pollMs: 3_600_000 });
      await trusting(relay);
      const cache = new GenerationalCache({
        ...{ name, store: lendStore(), source: knexSource(db), bumpDeadlineMs: 200 },
      });
      lend({ what: 'the cache', close: () => cache.close() });
      const items = cache.namespace('item', integer());
      const change = (...changed: number[]) =>
        cache.transaction((trx) => items.bumpMany(changed.map((item) => ({ item })), { trx })); // prettier-ignore
      expect((await change(IN_A, IN_B)).bump).to.equal('done');
      expect(await events()).to.deep.equal([]);
      b.pause();
      expect((await change(IN_A)).bump).to.equal('done');
      expect(await events()).to.deep.equal([]);
      expect((await change(IN_A, IN_B)).bump).to.equal('pending');
      expect((await events()).sort()).to.deep.equal([`item=${IN_A}`, `item=${IN_B}`].sort());
      b.resume();
      // Another server is authoritative for one of the partitions.
      await db('gencache_outbox').delete();
      await db('gencache_partition').where({ partition: '1/4' }).update({ redis: 'another' });
      await eventually(async () => expect((await change(IN_A)).bump).to.equal('done'));
      expect(await events()).to.deep.equal([]);
      expect((await change(IN_A, IN_B)).bump).to.equal('done');
      expect(await events()).to.have.length(2);
    });

    it('bumps what a migration holds elsewhere, and owes its last bump', async () => {
      const { relay } = lendWatchedRelay();
      await trusting(relay);
      await mint();
      await db.schema.createTable('knex_migrations_lock', (table) => table.integer('is_locked'));
      await db('knex_migrations_lock').insert({ is_locked: 1 });
      b.pause();
      await db('gencache_outbox').insert({
        ...{
          cache: name,
          path: '',
          source: 'm1',
          operation: 'migration',
          held_by: `"${schemaOf(db)}".knex_migrations_lock`,
        },
      });
      await eventually(async () => expect(await globalOf(0)).to.match(/^2\./));
      expect([await events(), await owed()]).to.deep.equal([[''], []]);
      await db('knex_migrations_lock').update({ is_locked: 0 });
      await eventually(async () => expect(await events()).to.deep.equal([]));
      expect(await owed()).to.deep.equal(NAMES_OF_B.map((partition) => ({ partition, paths: [''] })));
      b.resume();
      await eventually(async () => expect(await owed()).to.deep.equal([]));
      for (const partition of [1, 3]) expect(await globalOf(partition)).to.match(/^[1-9]/);
    });

    for (const step of [/delete from gencache_outbox as event/, /for share/, /insert into gencache_owed/, /^COMMIT/]) {
      it(`loses no bump when the relay’s connection ends at ${step.source}`, async () => {
        const { db: proxied, proxy } = await lendProxied(schemaOf(db));
        const { relay } = lendWatchedRelay({ db: proxied });
        await trusting(relay);
        await mint(IN_A, IN_B);
        b.pause();
        await eventually(() => expect(relay.status.partitions?.untrusted).to.deep.equal(NAMES_OF_B));
        let cuts = 0;
        proxied.on('query', ({ sql }: { sql: string }) => {
          if (cuts === 0 && isOwing && step.test(sql)) {
            cuts++;
            proxy.cut();
          }
        });
        let isOwing = true;
        await record(`item=${IN_A}`, `item=${IN_B}`);
        await eventually(() => expect(cuts).to.equal(1));
        isOwing = false;
        // Whatever was committed, the bump of B's scope waits.
        await eventually(async () => expect(await generationOf(IN_A)).to.match(/^[1-9]/));
        const left = [...(await events()), ...(await owed()).flatMap(({ paths }) => paths)];
        expect(left).to.include(`item=${IN_B}`);
        b.resume();
        await eventually(async () => expect([await events(), await owed()]).to.deep.equal([[], []]));
        expect(await generationOf(IN_B)).to.match(/^[1-9]/);
      });
    }
  });

  it('claims and repairs the partitions of a server that restarted, alone, and they owe nothing from before', async () => {
    const { relay, repairs } = lendWatchedRelay();
    await trusting(relay);
    await mint(IN_A, IN_B);
    const before = await db('gencache_partition').orderBy('partition').pluck<string[]>('epoch');
    repairs.length = 0;
    await b.kill('SIGKILL');
    await eventually(() => expect(relay.status.partitions?.untrusted).to.deep.equal(NAMES_OF_B));
    await record(`item=${IN_B}`, '');
    await eventually(async () => expect(await owed()).to.have.length(2));
    await b.restart();
    await eventually(() => expect(repairs).to.have.deep.members(NAMES_OF_B.map((partition) => ['store', partition])));
    expect(await owed()).to.deep.equal([]);
    await trusting(relay);
    const after = await db('gencache_partition').orderBy('partition').pluck<string[]>('epoch');
    expect(after.map((epoch, i) => epoch === before[i])).to.deep.equal([true, false, true, false]);
    for (const partition of [0, 2]) expect(await globalOf(partition)).to.match(/^1\./);
  });

  it('keeps its events if all servers are lost right after its bumps, and a layout was registered meanwhile', async () => {
    const { relay } = lendWatchedRelay();
    await trusting(relay);
    await mint(IN_A);
    const failures: unknown[] = [];
    relay.on('failure', ({ operation, error }) => operation === 'relay' && failures.push(error));
    const locking = await lendKnex(databaseUrl(schemaOf(db)), schemaOf(db)).transaction();
    await locking.raw('lock table gencache_partition in access exclusive mode');
    await record(`item=${IN_A}`);
    await eventually(async () => expect(await generationOf(IN_A)).to.match(/^[1-9]/));
    await Promise.all([a, b].map((server) => server.kill('SIGKILL')));
    await eventually(() => expect(relay.status.partitions?.untrusted).to.have.length(PARTITIONS));
    await db('gencache_layout').insert({ cache: name, partitions: 2 });
    await locking.commit();
    await eventually(() => expect(failures).to.not.deep.equal([]));
    expect(failures[0]).to.be.instanceOf(Error);
    expect(await events()).to.deep.equal([`item=${IN_A}`]);
    await Promise.all([a.restart(), b.restart()]);
    await trusting(relay);
    await eventually(async () => expect([await events(), await owed()]).to.deep.equal([[], []]));
  });

  it('leaves the events of a transaction in an outbox of an older release, with a warning', async () => {
    await db.raw('drop table gencache_owed, gencache_partition');
    const cache = new GenerationalCache({ name, store: lendStore(), source: knexSource(db) });
    lend({ what: 'the cache', close: () => cache.close() });
    const warnings: string[] = [];
    cache.on('warning', ({ message }) => warnings.push(message));
    const items = cache.namespace('item', integer());
    const { bump } = await cache.transaction((trx) => items.bump({ item: IN_A }, { trx }));
    expect(bump).to.equal('done');
    expect(await events()).to.deep.equal([`item=${IN_A}`]);
    const said =
      /^The events of a transaction were bumped, and stay .* There is no outbox of this release .*`installOutbox`/;
    await eventually(() => expect(warnings.some((message) => said.test(message))).to.equal(true));
  });

  it('says which rights its role lacks on the tables of partitions', async () => {
    const role = await lendRole(db);
    await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
    const { gencache_owed: owedRights, gencache_partition: partitionRights, ...others } = PARTITIONED_RELAY_RIGHTS;
    await grantRights(db, role, { ...others, gencache_partition: ['select'] });
    const own = lendKnex(databaseUrl(`${schemaOf(db)} -c role=${role}`), schemaOf(db));
    const { relay } = lendWatchedRelay({ db: own });
    const errors: string[] = [];
    relay.on('failure', ({ error }) => errors.push(error.message));
    const lacking = 'DELETE, INSERT, SELECT, UPDATE on gencache_owed; INSERT, UPDATE on gencache_partition';
    await eventually(() => expect(errors.some((message) => message.includes(lacking))).to.equal(true));
    await grantRights(db, role, { gencache_owed: owedRights!, gencache_partition: partitionRights! });
    await trusting(relay);
  });

  it('keeps the events, and owes nothing, while no server is there', async () => {
    const { relay } = lendWatchedRelay();
    await trusting(relay);
    await mint(IN_A, IN_B);
    for (const server of [a, b]) server.pause();
    try {
      await record(`item=${IN_A}`, `item=${IN_B}`);
      await eventually(() => expect(relay.status.partitions?.untrusted).to.have.length(4));
      expect([await events(), await owed()]).to.deep.equal([[`item=${IN_A}`, `item=${IN_B}`], []]);
    } finally {
      for (const server of [a, b]) server.resume();
    }
    for (const item of [IN_A, IN_B]) await eventually(async () => expect(await generationOf(item)).to.match(/^[1-9]/));
    await eventually(async () => expect([await events(), await owed()]).to.deep.equal([[], []]));
  });
});
