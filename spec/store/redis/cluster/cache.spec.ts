/** Caches on three primaries of a Redis Cluster, with 64 partitions: what they answer, and what it costs in commands. */
import { Socket } from 'node:net';
import { expect } from 'chai';
import sinon from 'sinon';
import { type CacheSettings, GenerationalCache, integer, nullable, text } from '../../../../lib/index.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { manualClock } from '../../../../lib/testing/index.js';
import type { Clock } from '../../../../lib/ports/clock.js';
import { keyPrefix, partitionOf } from '../../../../lib/model/key.js';
import { Partitions } from '../../../../lib/ports/partitions.js';
import { Quarantine } from '../../../../lib/write/quarantine.js';
import { recordCommands } from '../../../support/commands.js';
import { eventually } from '../../../support/deferred.js';
import { lend } from '../../../support/lenders.js';
import { privateRedisCluster, type RedisCluster, type RedisNode } from '../../../support/redis-cluster.js';
import { uniqueName } from '../../../support/redis.js';

const PARTITIONS = 64;

describe('a cache on a Redis Cluster', () => {
  let cluster: RedisCluster;
  before(async () => void (cluster = await privateRedisCluster({ replicas: 0 })));

  /** One process. All processes of a name read the same rows. */
  function lendProcess(
    name = uniqueName(),
    rows = new Map<string, unknown>(),
    { partitions = PARTITIONS, ...settings }: Partial<CacheSettings> & { partitions?: number; clock?: Clock } = {},
  ) {
    const store = redisStore(cluster.client(), { partitions });
    const cache = new GenerationalCache({ readDeadlineMs: 5_000, fillDeadlineMs: 5_000, ...settings, name, store });
    lend({ what: `the cache ${name}`, close: () => cache.close() });
    const loads: string[] = [];
    const read = {
      async load(asked: readonly object[]) {
        return asked.map((ids) => {
          const id = Object.values(ids).join('/');
          loads.push(id);
          return { ids, value: rows.get(id) ?? 0 };
        });
      },
      by: (row: { ids: object }) => row.ids as never,
      value: (row: { value: unknown }) => row.value,
    };
    const detectors = cache.namespace('detector', integer());
    const environments = detectors.namespace('environment', nullable(integer()));
    const tags = cache.namespace('tag', text());
    return {
      ...{ name, cache, loads, rows, detectors, environments, tags },
      total: cache.one('total', read),
      detector: detectors.one('value', read),
      workflows: environments.one('workflows', read),
      tagged: detectors.one('tagged', {
        ...read,
        dependsOn: ({ detector }) => [tags.scope({ tag: `t${Number(detector) % 3}` })],
      }),
    };
  }

  /** The commands that arrive at the primaries meanwhile, by name and address of the primary. */
  async function commandsOf(
    name: string,
    work: () => Promise<unknown>,
  ): Promise<{ node: number; command: string[] }[]> {
    const heard: { node: number; command: string[] }[] = [];
    let recorded = async () => void (await work());
    for (const { server } of cluster.primaries) {
      const inner = recorded;
      recorded = async () => {
        const { commands } = await recordCommands(server.url, inner, { from: name });
        heard.push(...commands.map((command) => ({ node: server.port, command })));
      };
    }
    await recorded();
    return heard;
  }

  /** How often this process writes to the sockets to each primary meanwhile, as far as it is about this cache. */
  async function writesOf(name: string, work: () => Promise<unknown>): Promise<number[]> {
    const writes = new Map(cluster.primaries.map(({ port }) => [port, 0]));
    const note = ({ remotePort = 0 }: Socket, chunks: readonly unknown[]) => {
      const count = writes.get(remotePort);
      if (count !== undefined && chunks.some((chunk) => String(chunk).includes(name))) {
        writes.set(remotePort, count + 1);
      }
    };
    const { _write: write, _writev: writev } = Socket.prototype;
    sinon.replace(Socket.prototype, '_write', function (this: Socket, ...args) {
      note(this, [args[0]]);
      return write.apply(this, args);
    });
    sinon.replace(Socket.prototype, '_writev', function (this: Socket, ...args) {
      note(
        this,
        args[0].map(({ chunk }) => chunk as unknown),
      );
      return writev!.apply(this, args);
    });
    try {
      await work();
    } finally {
      sinon.restore();
    }
    return [...writes.values()];
  }

  const ids = (count: number) => Array.from({ length: count }, (_, i) => ({ detector: i }));
  const prefixOf = (name: string, path: string) => keyPrefix(name, partitionOf(path, PARTITIONS), PARTITIONS);

  it('loads a miss once, and hits from then on, in each process and at each level', async () => {
    const one = lendProcess();
    const other = lendProcess(one.name, one.rows);
    one.rows.set('42', 'value');
    for (const { detector, workflows, total, tagged, cache } of [one, other]) {
      expect(await detector.fetch({ detector: 42 })).to.equal('value');
      expect(await workflows.fetch({ detector: 42, environment: null })).to.equal(0);
      expect(await total.fetch({})).to.equal(0);
      expect(await tagged.fetch({ detector: 42 })).to.equal('value');
      await cache.settled();
    }
    expect(one.loads).to.have.length(4);
    expect(other.loads).to.deep.equal([]);
  });

  it('reads a hit with one MGET, and a batch with one for each partition it touches', async () => {
    const { name, detector, cache } = lendProcess();
    await detector.fetchMany(ids(100));
    await cache.settled();
    const hit = await commandsOf(name, () => detector.fetch({ detector: 42 }));
    expect(hit.map(({ command }) => command[0])).to.deep.equal(['MGET']);
    const batch = await commandsOf(name, () => detector.fetchMany(ids(100)));
    const touched = new Set(ids(100).map((one) => partitionOf(`detector=${one.detector}`, PARTITIONS)));
    expect(batch.map(({ command }) => command[0])).to.deep.equal([...touched].map(() => 'MGET'));
    expect(new Set(batch.map(({ node }) => node)).size).to.equal(3);
  });

  it('keeps the order and the duplicates of a batch', async () => {
    const { rows, detector } = lendProcess();
    for (const { detector: id } of ids(100)) rows.set(String(id), `row ${id}`);
    const asked = [...ids(100), ...ids(50).toReversed()];
    for (let round = 0; round < 2; round++) {
      expect(await detector.fetchMany(asked)).to.deep.equal(asked.map((one) => `row ${one.detector}`));
    }
  });

  it('bumps a scope with one command, and global with one for each partition', async () => {
    const { name, detector, detectors, cache } = lendProcess();
    await detector.fetchMany(ids(200));
    await cache.settled();
    const bump = await commandsOf(name, () => detectors.bump({ detector: 42 }));
    expect(bump.map(({ command }) => command[0])).to.deep.equal(['EVAL']);
    expect(bump[0]!.command[3]).to.equal(`${prefixOf(name, 'detector=42')}g:detector=42`);
    const global = await commandsOf(name, () => cache.bump());
    expect(global).to.have.length(PARTITIONS);
    expect(new Set(global.map(({ command }) => command[4]))).to.have.property('size', PARTITIONS); // nonces
  });

  it('sends the commands of a turn to a primary in two writes: the first one, and all others', async () => {
    const { name, detector, cache } = lendProcess();
    await detector.fetchMany(ids(200));
    await cache.settled();
    await cache.bump(); // sends its script's text to each primary, and later ones the SHA
    expect(await writesOf(name, () => cache.bump())).to.deep.equal([2, 2, 2]);
    await detector.fetchMany(ids(200));
    await cache.settled();
    expect(await writesOf(name, () => detector.fetchMany(ids(200)))).to.deep.equal([2, 2, 2]);
    const one = await writesOf(name, () => detector.fetch({ detector: 42 }));
    expect(one.toSorted()).to.deep.equal([0, 0, 1]);
  });

  it('shows no process an entry from before a bump that has returned, at any level', async () => {
    const writer = lendProcess();
    const reader = lendProcess(writer.name, writer.rows);
    const all = ids(30);
    const fetch = () => Promise.all([reader.detector.fetchMany(all), reader.tagged.fetchMany(all)]);
    let version = 0;
    const write = () => {
      version++;
      for (const { detector: id } of all) writer.rows.set(String(id), version);
    };
    const bumps = [
      () => writer.cache.bump(),
      () => writer.detectors.bumpMany(all),
      async () => {
        await writer.detectors.bumpMany(all);
        await writer.cache.bump();
      },
    ];
    for (let round = 0; round < 6; round++) {
      await fetch();
      await reader.cache.settled();
      write();
      await bumps[round % bumps.length]!();
      expect(await fetch()).to.deep.equal([all.map(() => version), all.map(() => version)]);
    }
  });

  it('makes an entry that depends on scopes of other partitions a miss after their bump, and only that one', async () => {
    const writer = lendProcess();
    const reader = lendProcess(writer.name, writer.rows);
    const all = ids(30);
    await reader.tagged.fetchMany(all);
    await reader.cache.settled();
    for (const { detector: id } of all) writer.rows.set(String(id), 'new');
    await writer.tags.bump({ tag: 't1' });
    reader.loads.length = 0;
    expect(await reader.tagged.fetchMany(all)).to.deep.equal(
      all.map(({ detector }) => (detector % 3 === 1 ? 'new' : 0)),
    );
    expect(reader.loads).to.have.length(10);
    await reader.cache.settled();
    await reader.tagged.fetchMany(all);
    expect(reader.loads).to.have.length(10);
  });

  it('bypasses an entry while a scope of another partition that it depends on is under quarantine', async () => {
    const { name, cache, tagged, rows } = lendProcess();
    await tagged.fetch({ detector: 1 });
    await cache.settled();
    expect((await tagged.lookup({ detector: 1 })).outcome).to.equal('hit');
    const store = redisStore(cluster.client());
    lend({ what: 'the store', close: () => store.close() });
    const partitions = new Partitions(store, name);
    const quarantine = new Quarantine({
      ...{ present: async () => partitions, cache: name, deadlineMs: 5_000, lastsMs: 30_000 },
      ...{ setWithinMs: 10_000, onForeign: () => {} },
    });
    await quarantine.set(['tag=t1', '', 'detector=7']);
    expect(await tagged.lookup({ detector: 1 })).to.deep.include({ outcome: 'bypass', reason: 'quarantine' });
    rows.set('1', 'committed');
    expect(await tagged.fetch({ detector: 1 })).to.equal('committed');
    await quarantine.lift(['tag=t1', '', 'detector=7']);
    expect(quarantine.kept).to.equal(true);
    expect(await tagged.fetch({ detector: 1 })).to.equal('committed');
    await cache.settled();
    expect((await tagged.lookup({ detector: 1 })).outcome).to.equal('hit');
  });

  it('lets one of two processes load each entry of a batch', async () => {
    const one = lendProcess();
    const other = lendProcess(one.name, one.rows);
    await Promise.all([one.detector.fetchMany(ids(300)), other.detector.fetchMany(ids(300))]);
    expect(new Set([...one.loads, ...other.loads])).to.have.property('size', 300);
    // A process that comes late for a lease finds the entry.
    expect(one.loads.length + other.loads.length).to.be.below(330);
  });

  it('deletes an entry, also one that depends on scopes of other partitions', async () => {
    const { cache, detector, tagged } = lendProcess();
    for (const entry of [detector, tagged]) {
      await entry.fetch({ detector: 1 });
      await cache.settled();
      expect(await entry.delete({ detector: 1 })).to.equal(true);
      expect(await entry.delete({ detector: 1 })).to.equal(false);
      expect((await entry.lookup({ detector: 1 })).outcome).to.equal('miss');
    }
  });

  it('takes another number of partitions for another cache: each entry is a miss', async () => {
    const one = lendProcess();
    await one.detector.fetch({ detector: 1 });
    await one.cache.settled();
    for (const partitions of [1, 8]) {
      const other = lendProcess(one.name, one.rows, { partitions });
      expect(await other.detector.lookup({ detector: 1 })).to.include({ outcome: 'miss', cause: 'no_generation' });
    }
  });

  it('with one partition has all its keys in one slot, named as those without a Cluster', async () => {
    const { name, detector, tagged, cache } = lendProcess(undefined, undefined, { partitions: 1 });
    await detector.fetchMany(ids(50));
    await tagged.fetchMany(ids(50));
    await cache.bump();
    await detector.fetchMany(ids(50));
    await cache.settled();
    const owner = await cluster.owner(keyPrefix(name));
    for (const node of cluster.primaries) {
      const keys = (await node.admin.keys(`gencache:{${name}:*`)).filter((key) => !key.startsWith(keyPrefix(name)));
      expect(keys).to.deep.equal([]);
      if (node !== owner) expect(await node.admin.keys(`gencache:{${name}:*`)).to.deep.equal([]);
    }
  });

  it('leaves the user’s client alone, and reads from primaries whatever its scaleReads says', async () => {
    const client = cluster.client({ scaleReads: 'slave' });
    const cache = new GenerationalCache({ name: uniqueName(), store: redisStore(client), readDeadlineMs: 5_000 });
    lend({ what: 'the cache', close: () => cache.close() });
    const value = cache.value('value', { load: () => 1 });
    expect(await value.fetch({})).to.equal(1);
    await cache.settled();
    expect((await value.lookup({})).outcome).to.equal('hit');
    expect(client.status).to.equal('wait');
  });

  describe('one of whose primaries is down', () => {
    it('hits the entries of the others, bypasses those of that one, and hits all when it is back', async () => {
      const { name, cache, detector, detectors } = lendProcess(undefined, undefined, { bumpDeadlineMs: 500 });
      await detector.fetchMany(ids(60));
      await cache.settled();
      const victim = cluster.primaries[1]!;
      const owners = await Promise.all(ids(60).map((one) => cluster.owner(prefixOf(name, `detector=${one.detector}`))));
      const expected = owners.map((owner) => (owner === victim ? 'bypass' : 'hit'));
      expect(new Set(expected).size).to.equal(2);
      await victim.server.kill('SIGKILL');
      // The processes learn of it by their next commands.
      await eventually(async () => {
        const outcomes = await Promise.all(ids(60).map(async (one) => (await detector.lookup(one)).outcome));
        expect(outcomes).to.deep.equal(expected);
      });
      expect(await detector.fetchMany(ids(60))).to.deep.equal(ids(60).map(() => 0));
      const [up, down] = [expected.indexOf('hit'), expected.indexOf('bypass')];
      await detectors.bump({ detector: up });
      const failed = await cache.bump().then(
        () => undefined,
        (error: Error) => error,
      );
      expect(failed).to.include({ name: 'BumpError', outcome: 'not_sent' });
      expect(failed).to.have.deep.property('paths', ['']);
      await victim.server.restart();
      await cluster.formed();
      // The bump that is owed is made as soon as the primary is back: no entry from before it is a hit.
      await eventually(() => expect(cache.state.unbumped).to.equal(0));
      await eventually(async () => {
        await detector.fetch({ detector: down });
        await cache.settled();
        expect((await detector.lookup({ detector: down })).outcome).to.equal('hit');
      });
    });
  });

  it('tells that its connection is down, and where, from the loss of one primary until each can be reached', async () => {
    const { name, cache, detector } = lendProcess();
    const told: string[] = [];
    cache.on('storeUp', () => told.push('up'));
    cache.on('storeFailure', ({ operation }) => {
      if (operation === 'connection' && told.at(-1) !== 'down') told.push('down');
    });
    await eventually(() => expect(cache.state.connection).to.include({ isUp: true }));
    const [victim, other] = cluster.primaries as [RedisNode, RedisNode];
    const owners = await Promise.all(ids(60).map((one) => cluster.owner(prefixOf(name, `detector=${one.detector}`))));
    await victim.server.kill('SIGKILL');
    await eventually(() =>
      expect(cache.state.connection).to.deep.include({ isUp: false, unreachable: [`127.0.0.1:${victim.port}`] }),
    );
    const { sinceAtMs } = cache.state.connection!;

    // The other primary comes back, and so one server can be reached again; that one is not all of them.
    await other.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await eventually(async () =>
      expect((await detector.lookup({ detector: owners.indexOf(other) })).outcome).to.not.equal('bypass'),
    );
    expect(cache.state.connection!.unreachable).to.deep.equal([`127.0.0.1:${victim.port}`]);
    expect(cache.state.connection).to.include({ isUp: false, sinceAtMs });
    expect(told).to.deep.equal(['up', 'down']);

    await victim.server.restart();
    await cluster.formed();
    await eventually(() => expect(cache.state.connection).to.deep.include({ isUp: true, unreachable: [] }));
    expect(told).to.deep.equal(['up', 'down', 'up']);
  });

  describe('of whose primaries one does not answer', () => {
    const [victim, other] = [0, 1];

    /** A process that hits all entries, and that primary's items and another one's. Its breakers' clock stands still. */
    async function lendBroken() {
      const clock = manualClock();
      const lent = lendProcess(undefined, undefined, { clock, readDeadlineMs: 500, breakerFailures: 3 });
      const { name, detector, tagged, cache } = lent;
      const outcome = async (entry: typeof detector, id: number) => {
        const { outcome: got, ...rest } = await entry.lookup({ detector: id });
        return 'reason' in rest ? rest.reason : got;
      };
      await eventually(async () => {
        clock.advance(10_000);
        await detector.fetchMany(ids(60));
        await tagged.fetchMany(ids(60));
        await cache.settled();
        for (const { detector: id } of ids(60)) {
          expect([await outcome(detector, id), await outcome(tagged, id)]).to.deep.equal(['hit', 'hit']);
        }
      });
      const ownedBy = async (path: string) => cluster.primaries.indexOf(await cluster.owner(prefixOf(name, path)));
      const owners = await Promise.all(ids(60).map((one) => ownedBy(`detector=${one.detector}`)));
      const of = (primary: number) => ids(60).flatMap(({ detector: id }) => (owners[id] === primary ? [id] : []));
      return { ...lent, clock, outcome, ownedBy, of };
    }

    const frozen = async (work: () => Promise<void>, primary = victim) => {
      cluster.primaries[primary]!.server.pause();
      try {
        await work();
      } finally {
        cluster.primaries[primary]!.server.resume();
      }
    };

    it('has three reads fail, whatever their partitions, and hits the entries of the others all the time', async () => {
      const { cache, detector, outcome, of } = await lendBroken();
      const failed = cache.statistics.total('store_failures', { operation: 'read' });
      await frozen(async () => {
        const outcomes: unknown[] = [];
        for (const id of of(victim)) outcomes.push(await outcome(detector, id));
        expect(outcomes).to.deep.equal(of(victim).map((_, i) => (i < 3 ? 'store_failure' : 'breaker_open')));
        for (const id of of(other)) expect(await outcome(detector, id)).to.equal('hit');
      });
      expect(cache.statistics.total('store_failures', { operation: 'read' })).to.equal(failed + 3);
      expect(cache.state.reads.isUp).to.equal(false);
    });

    it('keeps reads from it that depend on a scope of its own, and no others, until one of them has an answer', async () => {
      const { cache, clock, detector, tagged, outcome, ownedBy } = await lendBroken();
      const tag = await ownedBy('tag=t1');
      // At another primary than the tag they depend on.
      const dependent: number[] = [];
      for (const id of ids(60).map((one) => one.detector)) {
        if (id % 3 === 1 && (await ownedBy(`detector=${id}`)) !== tag) dependent.push(id);
      }
      await frozen(async () => {
        for (const [i, id] of dependent.slice(0, 5).entries()) {
          expect(await outcome(tagged, id)).to.equal(i < 3 ? 'store_failure' : 'breaker_open');
        }
        for (const id of dependent) expect(await outcome(detector, id)).to.equal('hit');
      }, tag);
      await eventually(async () => {
        clock.advance(1_000);
        expect(await outcome(tagged, dependent[0]!)).to.equal('hit');
      });
      expect(cache.state.reads.isUp).to.equal(true);
    });
  });

  it('rejects a bump whose partition never answers, and tells the partition’s scopes alone', async () => {
    const { name, cache, detectors, detector } = lendProcess(undefined, undefined, { bumpDeadlineMs: 300 });
    await detector.fetchMany(ids(60));
    await cache.settled();
    const victim = await cluster.owner(prefixOf(name, 'detector=1'));
    victim.server.pause();
    try {
      const error = await detectors.bumpMany(ids(60)).then(
        () => undefined,
        (thrown: unknown) => thrown as { paths: readonly string[]; outcome: string },
      );
      expect(error).to.include({ outcome: 'unknown' });
      expect(error!.paths).to.include('detector=1').and.to.have.property('length').that.is.within(1, 59);
      expect(cache.state.unbumped).to.equal(error!.paths.length);
    } finally {
      victim.server.resume();
    }
    await eventually(() => expect(cache.state.unbumped).to.equal(0));
  });
});
