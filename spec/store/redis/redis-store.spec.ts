import { expect } from 'chai';
import { Cluster, Redis, type RedisOptions } from 'ioredis';
import { DeadlineError } from '../../../lib/async/deadline.js';
import { formatGeneration, nonce } from '../../../lib/model/generation.js';
import { type StoreSignal, StoreUnavailableError } from '../../../lib/index.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { recordCommands } from '../../support/commands.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { startProxy } from '../../support/proxy.js';
import { lendRedis, privateRedis, redisUrl, uniqueName } from '../../support/redis.js';
import { freePort } from '../../support/servers/free-port.js';
import { AskedStore } from '../../ports/asked-store.js';
import { rejection, thrown } from '../../support/rejection.js';

/** A store on the shared server, or on another one; closed after the spec. */
function lendStore(options: { url?: string; limitMs?: number } = {}): AskedStore & { readonly name: string } {
  const name = uniqueName();
  // The client gives the address, and need not connect itself.
  const client = lendRedis({ lazyConnect: true, ...(options.url === undefined ? {} : { url: options.url }) });
  const store = redisStore(client);
  lend({ what: `the store ${name}`, close: () => store.close() });
  return Object.assign(new AskedStore(store, name, options.limitMs), { name });
}

/** A private server behind a proxy, a store that connects through the proxy, and a client that does not. */
async function lendProxied(options: { limitMs?: number } = {}) {
  const server = await privateRedis();
  const proxy = await startProxy(server.port);
  const asked = lendStore({ ...options, url: proxy.url });
  await asked.read(asked.entryKey()); // connected
  return { server, proxy, asked, direct: lendRedis({ url: server.url }) };
}

describe('redisStore', () => {
  describe('commands', () => {
    /** The names of the commands that `work` sends. */
    const names = async (asked: AskedStore & { name: string }, work: () => Promise<unknown>) =>
      (await recordCommands(redisUrl(), work, { from: asked.name })).commands.map(([name]) => name);

    it('are one for each call of a reader', async () => {
      const asked = lendStore();
      const guards = [await asked.minted(), await asked.minted()];
      const entries = [asked.entryKey(), asked.entryKey()];
      await asked.bump([asked.generationKey()]);
      await asked.fill([]); // the connection knows the scripts by now

      expect(await names(asked, () => asked.read(...guards.map(({ key }) => key), ...entries))).to.deep.equal([
        'MGET', // of all keys
      ]);
      expect(await names(asked, () => asked.mint([asked.generationKey(), asked.generationKey()]))).to.deep.equal([
        'EVALSHA', // mints both
      ]);
      expect(await names(asked, () => asked.bump(guards.map(({ key }) => key)))).to.deep.equal([
        'EVALSHA', // bumps both
      ]);
      const fill = () =>
        asked.fill(
          guards.map(({ key, token }) => ({ key, token, ttlMs: 60_000 })),
          ...entries.map((key) => ({ key, bytes: Buffer.from('value'), ttlMs: 60_000, guards: [0, 1] })),
        );
      expect(await names(asked, fill)).to.deep.equal([
        'EVALSHA', // checks both guards, fills both entries
      ]);
      expect(await names(asked, () => asked.delete(...entries))).to.deep.equal([
        'UNLINK', // of both
      ]);
      const claim = () =>
        asked.claim(
          guards,
          entries.map((key) => ({ key, guards: [0, 1] })),
        );
      await claim();
      expect(await names(asked, claim)).to.deep.equal([
        'EVALSHA', // checks both guards, takes both leases
      ]);
    });

    it('that waited in a Redis that was stopped fill no entry for longer than its TTL', async () => {
      const server = await privateRedis();
      const asked = lendStore({ url: server.url, limitMs: 1_000 });
      const direct = lendRedis({ url: server.url });
      const [long, short] = [asked.entryKey(), asked.entryKey()];
      await asked.fill([]); // the connection knows the script by now
      const asOfMs = await asked.timeMs();
      server.pause();
      const entries = [
        { key: long, bytes: Buffer.from('value'), ttlMs: 60_000, guards: [] },
        { key: short, bytes: Buffer.from('value'), ttlMs: 500, guards: [] },
      ];
      const error = await rejection(asked.fillBatch({ entries, asOfMs }));
      expect(error).to.be.instanceOf(DeadlineError);
      server.resume();
      await eventually(async () => expect(await direct.exists(long)).to.equal(1));
      expect(await direct.pexpiretime(long)).to.equal(asOfMs + 60_000);
      expect(await direct.exists(short)).to.equal(0);
    });

    it('are one for each call of a writer or a relay', async () => {
      const asked = lendStore();
      await asked.timeMs();
      const keys = [asked.generationKey(), asked.generationKey()];
      const [token, global] = [nonce(), asked.generationKey()];
      const scripts: [string, () => Promise<unknown>][] = [
        ['puts the token into both', () => asked.quarantine(keys, token)],
        ['takes it out of both', () => asked.lift(keys, token)],
        ['checks the server, bumps global, writes the mark', () => asked.repair({ globalKey: global })],
        [
          'checks the server and the mark, extends both keys',
          () => asked.renew({ keys: [1_000, 2_000].map((ms) => ({ key: asked.freshnessKey(ms), untilMs: 1 })) }),
        ],
      ];
      for (const [what, call] of scripts) {
        await call(); // the connection knows the script by now
        expect(await names(asked, call), what).to.deep.equal(['EVALSHA']);
      }
      expect(await names(asked, () => asked.readMark())).to.deep.equal(['GET']);
      const { commands } = await recordCommands(redisUrl(), () => asked.timeMs(), { keyless: true });
      expect(commands.filter(([command]) => command === 'TIME')).to.have.length.at.least(1);
    });

    it('are one even at the first use of a script on a connection, which sends its text', async () => {
      const asked = lendStore();
      await asked.read(asked.entryKey());
      expect(await names(asked, () => asked.mint([asked.generationKey()]))).to.deep.equal([
        'EVAL', // the text, and the mint
      ]);
      expect(await names(asked, () => asked.mint([asked.generationKey()]))).to.deep.equal([
        'EVALSHA', // the mint
      ]);
    });

    it('are two when the server has forgotten the script, which it then runs once', async () => {
      const server = await privateRedis();
      const asked = lendStore({ url: server.url });
      const { key } = await asked.minted();
      await asked.bump([key]);
      await lendRedis({ url: server.url }).script('FLUSH');
      const attempt = nonce();
      const { result, commands } = await recordCommands(server.url, () => asked.bump([key], attempt), {
        from: attempt,
      });
      expect(commands.map(([name]) => name)).to.deep.equal([
        'EVALSHA', // NOSCRIPT: nothing was carried out
        'EVAL', // bumps
      ]);
      expect(result).to.deep.equal([formatGeneration(2, attempt)]);
    });
  });

  describe('TTLs, in Redis', () => {
    it('stand on every key that the store writes', async () => {
      const asked = lendStore();
      const client = lendRedis();
      const { key, token } = await asked.minted(60_000);
      expect(await client.pttl(key)).to.be.within(50_000, 60_000);
      await asked.bump([key], nonce(), 150_000);
      expect(await client.pttl(key)).to.be.within(140_000, 150_000);
      expect(token).to.match(/^0\./);
      const entry = asked.entryKey();
      await asked.plant(entry, 'value', 30_000);
      expect(await client.pttl(entry)).to.be.within(20_000, 30_000);
    });

    it('come back to a persistent generation with a bump, and with a fill', async () => {
      const asked = lendStore();
      const client = lendRedis();
      const { key, token } = await asked.minted();
      await client.persist(key);
      const guards = [{ key, token, ttlMs: 60_000 }];
      await asked.fill(guards, { key: asked.entryKey(), bytes: Buffer.alloc(1), ttlMs: 1_000, guards: [0] });
      expect(await client.pttl(key)).to.be.within(50_000, 60_000);
      await client.persist(key);
      await asked.bump([key], nonce(), 60_000);
      expect(await client.pttl(key)).to.be.within(50_000, 60_000);
    });
  });

  describe('instants, in Redis', () => {
    it('a freshness key expires at exactly the instant until which it keeps entries fresh', async () => {
      const asked = lendStore();
      await asked.timeMs();
      await asked.repair();
      const [first, second] = [asked.freshnessKey(20_000), asked.freshnessKey(30_000)];
      const nowMs = await asked.timeMs();
      await asked.renew({
        keys: [
          { key: first, untilMs: nowMs + 12_345 },
          { key: second, untilMs: nowMs + 23_456 },
        ],
      });
      const client = lendRedis();
      expect(await client.pexpiretime(first)).to.equal(nowMs + 12_345);
      expect(await client.pexpiretime(second)).to.equal(nowMs + 23_456);
      expect(await client.pttl(asked.markKey)).to.be.within(3_590_000, 3_600_000);
    });

    it('a quarantine expires at the instant of its latest token, before and after a bump and a lift', async () => {
      const asked = lendStore();
      const client = lendRedis();
      const key = asked.generationKey();
      const [A, B] = [nonce(), nonce()];
      /** The instants in the value, the latest first. */
      const instants = async () =>
        [...(await client.get(key))!.matchAll(/@(\d+)/g)].map(([, at]) => Number(at)).sort((a, b) => b - a);
      await asked.quarantine([key], A, 20_000);
      await asked.quarantine([key], B, 10_000);
      const [latest, earlier] = await instants();
      expect(latest! - earlier!).to.be.within(9_000, 10_000);
      expect(await client.pexpiretime(key)).to.equal(latest);
      await asked.bump([key], nonce(), 60_000);
      expect(await client.pexpiretime(key)).to.equal(latest);
      await asked.lift([key], A);
      expect(await instants()).to.deep.equal([earlier]);
      expect(await client.pexpiretime(key)).to.equal(earlier);
    });

    it('a persistent quarantine expires again after a bump', async () => {
      const asked = lendStore();
      const client = lendRedis();
      const key = asked.generationKey();
      await asked.quarantine([key], nonce(), 20_000);
      const expiresAtMs = await client.pexpiretime(key);
      await client.persist(key);
      await asked.bump([key]);
      expect(await client.pexpiretime(key)).to.equal(expiresAtMs);
    });
  });

  it('speaks the protocol of its owner’s client', async () => {
    const name = uniqueName();
    const store = redisStore(lendRedis({ lazyConnect: true, connectionName: name, protocol: 2 }));
    lend({ what: 'the store', close: () => store.close() });
    await new AskedStore(store, name).timeMs();
    const clients = (await lendRedis().client('LIST')) as string;
    const own = clients.split('\n').find((client) => client.includes(`name=${name} `));
    // Redis tells it since 7.0.
    expect(/ resp=(\d)/.exec(own!)?.[1] ?? '2').to.equal('2');
  });

  describe('the incarnation', () => {
    const told = async (url: string) => {
      const info = await lendRedis({ url }).info();
      return `${/run_id:(\w+)/.exec(info)![1]}.${/master_replid:(\w+)/.exec(info)![1]}`;
    };

    it('is the one in INFO while the connection is open, and undefined before and after', async () => {
      const asked = lendStore();
      expect(asked.store.incarnation).to.equal(undefined);
      await asked.timeMs();
      expect(asked.store.incarnation).to.equal(await told(redisUrl()));
      await asked.store.close();
      expect(asked.store.incarnation).to.equal(undefined);
    });

    it('is undefined while the server is down, and another one after its restart', async () => {
      const server = await privateRedis();
      const asked = lendStore({ url: server.url });
      const seen: (string | undefined)[] = [];
      asked.store.listen!(({ kind }) => kind !== 'warning' && seen.push(asked.store.incarnation));
      await asked.timeMs();
      const before = asked.store.incarnation;
      await server.kill('SIGKILL');
      await eventually(() => expect(asked.store.incarnation).to.equal(undefined));
      await server.restart();
      await eventually(() => expect(asked.store.incarnation).to.not.equal(undefined));
      expect(asked.store.incarnation)
        .to.equal(await told(server.url))
        .and.to.not.equal(before);
      expect(seen.filter((incarnation) => incarnation !== undefined)).to.deep.equal([before, asked.store.incarnation]);
    });
  });

  it('a renewal and a repair notice that the primary has another history, under an open connection', async () => {
    for (const call of ['renew', 'repair'] as const) {
      const server = await privateRedis();
      const asked = lendStore({ url: server.url });
      const admin = lendRedis({ url: server.url });
      await asked.timeMs();
      const before = asked.store.incarnation!;
      const replicaOf = await freePort();
      await admin.multi().replicaof(server.host, replicaOf).replicaof('NO', 'ONE').exec();
      if (call === 'renew') expect(await asked.renew({ keys: [] })).to.equal('other_server');
      else expect(await rejection(asked.repair())).to.include({ sent: false });
      await eventually(() => expect(asked.store.incarnation).to.be.a('string').and.not.equal(before));
      await asked.repair();
      expect(await asked.renew({ keys: [] })).to.equal('renewed');
    }
  });

  describe('a primary made a replica, under an open connection', () => {
    it('refuses a renewal, a repair, a quarantine, a lift and a bump', async () => {
      const server = await privateRedis();
      const asked = lendStore({ url: server.url });
      const admin = lendRedis({ url: server.url });
      const [held, missing, token] = [asked.generationKey(), asked.generationKey(), nonce()];
      await asked.quarantine([held], token);
      await asked.repair();
      const nowMs = await asked.timeMs();
      const { incarnation } = asked.store;
      const key = asked.freshnessKey(30_000);
      const others = Array.from({ length: 4 }, () => lendStore({ url: server.url }));
      for (const other of others) await other.timeMs(); // connected
      await admin.replicaof(server.host, await freePort());
      const value = await admin.get(held);

      expect(await asked.renew({ incarnation: incarnation!, keys: [{ key, untilMs: nowMs + 20_000 }] })).to.equal(
        'other_server',
      );
      expect(await rejection(asked.repair({ incarnation: incarnation! }))).to.include({ sent: false });
      expect(await admin.get(key)).to.equal(null);
      // A store for each write: the store leaves its connection after the first refused write.
      const writes = [
        (store: AskedStore) => store.quarantine([missing], token),
        (store: AskedStore) => store.lift([held], token),
        (store: AskedStore) => store.lift([missing], token),
        (store: AskedStore) => store.bump([held]),
      ];
      for (const [i, write] of writes.entries()) {
        const error = await rejection(write(others[i]!));
        expect(error).to.be.instanceOf(StoreUnavailableError);
        expect(error.message).to.contain('READONLY');
      }
      expect(await admin.get(held)).to.equal(value);
    });
  });

  it('names the missing right of a user without GET, and takes no key for one of another type', async () => {
    const server = await privateRedis();
    const admin = lendRedis({ url: server.url });
    await admin.acl('SETUSER', 'app', 'on', '>secret', '~*', '+@all', '-get');
    const sound = lendStore({ url: server.url });
    const { key, token } = await sound.minted();
    await sound.repair();
    const url = new URL(server.url);
    url.username = 'app';
    url.password = 'secret';
    const asked = lendStore({ url: url.href });
    await asked.timeMs();
    const entry = { key: asked.entryKey(), bytes: Buffer.from('value'), ttlMs: 60_000, guards: [0] };
    for (const work of [
      () => asked.mint([key, asked.generationKey()], token),
      () => asked.bump([key]),
      () => asked.fill([{ key, token, ttlMs: 60_000 }], entry),
      () => asked.quarantine([key], nonce()),
      () => asked.lift([key], nonce()),
      () => asked.renew({ keys: [] }),
      () => asked.repair(),
    ]) {
      const error = await rejection(work());
      expect(error, String(work)).to.be.instanceOf(StoreUnavailableError);
      expect(error.message, String(work)).to.match(/NOPERM|can't run this command|no permissions/);
    }
    expect(await admin.get(key)).to.equal(token);
  });

  describe('a key of another type', () => {
    it('at an entry’s key reads as missing, refuses a fill, and can be deleted', async () => {
      const asked = lendStore();
      const client = lendRedis();
      const { key: guard, token } = await asked.minted();
      const [set, free] = [asked.entryKey(), asked.entryKey()];
      await client.sadd(set, 'member');
      await client.expire(set, 60);
      expect(await asked.read(set)).to.deep.equal([null]);
      const entry = { bytes: Buffer.from('value'), ttlMs: 60_000, guards: [0] };
      expect(
        await asked.fill([{ key: guard, token, ttlMs: 60_000 }], { ...entry, key: set }, { ...entry, key: free }),
      ).to.deep.equal(['foreign', 'filled']);
      expect(await client.smembers(set)).to.deep.equal(['member']);
      expect(await asked.delete(set)).to.equal(1);
    });

    it('at a generation’s key is foreign to mint, refuses a fill, and is deleted by a bump', async () => {
      const asked = lendStore();
      const client = lendRedis();
      const [hash, sound] = [asked.generationKey(), asked.generationKey()];
      await client.hset(hash, 'field', 'value');
      await client.expire(hash, 60);
      const token = formatGeneration(0, nonce());
      expect(await asked.mint([hash, sound], token)).to.deep.equal(['foreign', token]);
      const entry = asked.entryKey();
      const bytes = Buffer.from('value');
      expect(
        await asked.fill([{ key: hash, token, ttlMs: 60_000 }], { key: entry, bytes, ttlMs: 60_000, guards: [0] }),
      ).to.deep.equal(['moved']);
      expect(await client.hgetall(hash)).to.deep.equal({ field: 'value' });
      const attempt = nonce();
      expect(await asked.bump([hash, sound], attempt)).to.deep.equal(['foreign', formatGeneration(1, attempt)]);
      expect(await client.exists(hash)).to.equal(0);
    });

    it('at a generation’s key is replaced by a quarantine, and deleted by a lift and by a repair', async () => {
      const asked = lendStore();
      const client = lendRedis();
      await asked.timeMs();
      const hashes = [asked.generationKey(), asked.generationKey(), asked.generationKey()] as const;
      for (const hash of hashes) {
        await client.hset(hash, 'field', 'value');
        await client.expire(hash, 60);
      }
      expect(await asked.quarantine([hashes[0]])).to.equal(0);
      expect(await asked.lift([hashes[1]], nonce())).to.deep.equal(['lapsed']);
      await asked.repair({ globalKey: hashes[2] });
      expect(await client.type(hashes[0])).to.equal('string');
      expect(await client.exists(hashes[1], hashes[2])).to.equal(0);
    });

    it('at the mark’s key counts as another mark; a renewal replaces one at a freshness key', async () => {
      const asked = lendStore();
      const client = lendRedis();
      const key = asked.freshnessKey(30_000);
      const untilMs = (await asked.timeMs()) + 20_000;
      await client.sadd(asked.markKey, 'member');
      expect(await asked.renew({ keys: [{ key, untilMs }] })).to.equal('unmarked');
      await asked.repair();
      await client.sadd(key, 'member');
      expect(await asked.renew({ keys: [{ key, untilMs }] })).to.equal('renewed');
      expect(await asked.text(key)).to.match(new RegExp(`^${asked.store.incarnation} `));
    });
  });

  describe('when the server’s memory is full, under noeviction', () => {
    it('a bump takes effect; fills and mints are refused', async () => {
      const server = await privateRedis();
      const asked = lendStore({ url: server.url });
      const admin = lendRedis({ url: server.url });
      const { key, token } = await asked.minted();
      const old = asked.entryKey();
      await asked.plant(old, 'old');
      await admin.config('SET', 'maxmemory-policy', 'noeviction');
      await admin.config('SET', 'maxmemory', '1');

      const refused = await rejection(
        asked.fill([{ key, token, ttlMs: 60_000 }], {
          key: old,
          bytes: Buffer.from('new'),
          ttlMs: 60_000,
          guards: [0],
        }),
      );
      expect(refused).to.be.instanceOf(StoreUnavailableError);
      expect(refused.message).to.contain('OOM command not allowed');
      expect(await rejection(asked.mint([asked.generationKey()]))).to.be.instanceOf(StoreUnavailableError);
      expect(await asked.text(old)).to.equal('old');

      await asked.bump([key]);
      // A deleted generation is as good as a bumped one: its next reader mints another.
      expect(await asked.text(key)).to.equal(undefined);
      await admin.config('SET', 'maxmemory', '0');
      expect(await asked.mint([key])).to.not.deep.equal([token]);
    });

    it('a new quarantine is refused; a standing one outlives bumps and ends with its last lift', async () => {
      const server = await privateRedis();
      const asked = lendStore({ url: server.url });
      const admin = lendRedis({ url: server.url });
      const [one, two, global] = [asked.generationKey(), asked.generationKey(), await asked.minted()];
      const [A, B] = [nonce(), nonce()];
      await asked.quarantine([one, two], A);
      await asked.quarantine([two], B);
      await admin.config('SET', 'maxmemory-policy', 'noeviction');
      await admin.config('SET', 'maxmemory', '1');

      expect((await rejection(asked.quarantine([asked.generationKey()], A))).message).to.contain('OOM');
      const value = await asked.text(one);
      expect(await asked.bump([one])).to.deep.equal(['quarantined']);
      expect(await asked.text(one)).to.equal(value);
      expect(await asked.lift([one, two], A)).to.deep.equal(['kept', 'kept']);
      expect(await asked.text(one)).to.equal(undefined); // as good as a fresh value
      expect(await asked.text(two)).to.contain(B);

      // Redis lets a script that has written something go on.
      await asked.repair({ globalKey: global.key });
      expect(await asked.text(global.key)).to.equal(undefined);
      expect(await asked.readMark()).to.not.equal(null);
      await asked.evict(asked.markKey);
      expect((await rejection(asked.repair({ globalKey: asked.generationKey() }))).message).to.contain('OOM');
      expect(await asked.readMark()).to.equal(null);
    });
  });

  describe('refuses a client', () => {
    const client = (options: RedisOptions) => new Redis({ lazyConnect: true, ...options } as object);

    it('with a keyPrefix', () => {
      expect(thrown(() => redisStore(client({ keyPrefix: 'shop:' })))).to.include({
        name: 'ConfigurationError',
        code: 'CONFIGURATION',
        message:
          "The client of a Redis store must have no keyPrefix, but got 'shop:'. Put the prefix into the cache's name, " +
          'with which every key starts.',
      });
    });

    it('that reads from replicas', () => {
      const message = (option: string) =>
        'The client of a Redis store must read from a primary, since a replica may lag behind and show old generations, ' +
        `but got one with ${option}. Pass a client of the primary.`;
      expect(thrown(() => redisStore(client({ readOnly: true })))).to.include({
        name: 'ConfigurationError',
        message: message('readOnly: true'),
      });
      expect(thrown(() => redisStore(client({ role: 'slave' })))).to.include({
        name: 'ConfigurationError',
        message: message("role: 'slave'"),
      });
      expect(thrown(() => redisStore(client({ preferredSlaves: [{ ip: '127.0.0.1', port: '1' }] })))).to.include({
        name: 'ConfigurationError',
        message: message('preferredSlaves'),
      });
    });

    it('that is one of a Redis Cluster with a keyPrefix, with SRV records, or without a node', () => {
      const lend = (nodes: number[], options: NonNullable<ConstructorParameters<typeof Cluster>[1]>) =>
        new Cluster(nodes, { lazyConnect: true, ...options });
      const prefixed =
        "The client of a Redis store must have no keyPrefix, but got 'app:'. Put the prefix into the cache's name, with " +
        'which every key starts.';
      for (const [cluster, message] of [
        [lend([1], { keyPrefix: 'app:' }), prefixed],
        [lend([1], { redisOptions: { keyPrefix: 'app:' } }), prefixed],
        [
          lend([1], { useSRVRecords: true }),
          'The Cluster client of a Redis store must name nodes by host and port, but got one with useSRVRecords: true. ' +
            'Pass the host and port of one node or more.',
        ],
        [
          lend([], {}),
          'The Cluster client of a Redis store must name one node at least, but got none. Pass the host and port of a node.',
        ],
      ] as const) {
        expect(thrown(() => redisStore(cluster))).to.include({ name: 'ConfigurationError', message });
      }
    });

    it('that is one of a Redis Cluster, with an invalid number of partitions', () => {
      for (const partitions of [0, 1.5, 1_025, Number.NaN]) {
        expect(thrown(() => redisStore(new Cluster([1], { lazyConnect: true }), { partitions })))
          .to.include({ name: 'ConfigurationError' })
          .and.to.have.property('message')
          .that.matches(/^partitions of a Redis store must be an integer from 1 to 1024, but got /);
      }
    });

    it('with options that it does not know, or that are for a Redis Cluster', () => {
      const [cluster, redis] = [new Cluster([1], { lazyConnect: true }), lendRedis({ lazyConnect: true })];
      for (const [client, options, message] of [
        [
          cluster,
          { partition: 8 },
          /^The options of a Redis store must be among partitions, alsoPartitions, but got 'partition'\. /,
        ],
        [cluster, null, /^The options of a Redis store must be among .*, but got null\. /],
        [cluster, 8, /^The options of a Redis store must be among .*, but got 8\. /],
        [cluster, { alsoPartitions: 8 }, /^alsoPartitions of a Redis store must be a list .*, but got 8\. Write \[8\]/],
        [
          cluster,
          { alsoPartitions: [0] },
          /^Each of alsoPartitions of a Redis store must be an integer from 1 to 1024, /,
        ],
        [redis, { partitions: 8 }, /^A Redis store without a Cluster must have no options, but got 'partitions'\. /],
      ] as const) {
        expect(thrown(() => redisStore(client as Cluster, options as never)))
          .to.include({ name: 'ConfigurationError' })
          .and.to.have.property('message')
          .that.matches(message);
      }
    });

    it('that is no ioredis client', () => {
      for (const [garbage, shown] of [
        [undefined, 'undefined'],
        [null, 'null'],
        ['redis://127.0.0.1', "'redis://127.0.0.1'"],
        [{ duplicate: 'no function' }, "{ duplicate: 'no function' }"],
        [Redis, 'a function'],
      ] as const) {
        expect(thrown(() => redisStore(garbage as never))).to.include({
          name: 'ConfigurationError',
          message:
            `The client of a Redis store must be an ioredis client, but got ${shown}. ` +
            'Pass `new Redis(url)` of ioredis.',
        });
      }
    });
  });

  it('refuses a second cache', async () => {
    const { store } = lendStore();
    store.listen!(() => {});
    expect(thrown(() => store.listen!(() => {}))).to.include({
      name: 'ConfigurationError',
      message:
        'A Redis store must serve one cache, which closes its connection, but got a second one. ' +
        'Call redisStore(redis) once for each cache.',
    });
  });

  describe('a server that is a replica', () => {
    it('is not read: a read rejects with an error that names the replica', async () => {
      const primary = await privateRedis({ args: ['--repl-diskless-sync-delay', '0'] });
      const replica = await privateRedis({ args: ['--replicaof', primary.host, String(primary.port)] });
      const direct = lendRedis({ url: replica.url });
      await eventually(async () => expect(await direct.info('replication')).to.contain('master_link_status:up'));
      const why =
        'The Redis server is a replica, which may lag behind its primary. Pass the primary, or the Sentinels that know it.';
      const signals: StoreSignal[] = [];
      const asked = lendStore({ url: replica.url, limitMs: 300 });
      asked.store.listen!((signal) => signals.push(signal));
      const work = () => rejection(asked.read(asked.entryKey()));
      const { result, commands } = await recordCommands(replica.url, work, { from: 'gencache' });
      expect(result).to.be.instanceOf(StoreUnavailableError);
      expect(result).to.include({
        sent: false,
        message: `Redis was not connected: ${why} Check the server's address and the network.`,
      });
      expect((await rejection(asked.bump([asked.generationKey()]))).message).to.equal(
        `Redis was not connected within 300 ms: ${why} Check the server's address and the network.`,
      );
      expect(commands).to.deep.equal([]); // not even asked
      expect(signals.map(({ kind }) => kind)).to.not.include('up');
      expect(signals.map((signal) => signal.kind === 'down' && signal.error.message)).to.include(why);
    });

    it('is read after its promotion', async () => {
      const primary = await privateRedis({ args: ['--repl-diskless-sync-delay', '0'] });
      const replica = await privateRedis({ args: ['--replicaof', primary.host, String(primary.port)] });
      const asked = lendStore({ url: replica.url, limitMs: 300 });
      await rejection(asked.read(asked.entryKey()));
      await lendRedis({ url: replica.url }).replicaof('NO', 'ONE');
      await eventually(async () => expect(await asked.read(asked.entryKey())).to.deep.equal([null]));
    });
  });

  describe('a lost reply', () => {
    it('rejects a bump as sent, never sends its nonce again, and leaves the store usable', async () => {
      const { server, proxy, asked, direct } = await lendProxied();
      const { key } = await asked.minted();
      await asked.bump([key]); // the script is known
      const attempt = nonce();
      const { result, commands } = await recordCommands(
        server.url,
        async () => {
          const dropped = proxy.dropReplies();
          const error = await rejection(asked.bump([key], attempt));
          await dropped;
          // The server executed it; the reply was lost.
          expect(await direct.get(key)).to.equal(formatGeneration(2, attempt));
          // The store connects again; a resent command would arrive before this one.
          expect(await asked.bump([key])).to.not.deep.equal([formatGeneration(3, attempt)]);
          return error;
        },
        { keyless: true },
      );
      expect(result).to.be.instanceOf(StoreUnavailableError);
      expect(result).to.include({ code: 'STORE_UNAVAILABLE', sent: true });
      const carrying = commands.filter((command) => command.includes(attempt)).map(([name]) => name);
      expect(carrying).to.deep.equal([
        'EVALSHA', // the bump whose reply was lost
      ]);
    });

    it('rejects the first bump of a connection as sent, and never sends its nonce again', async () => {
      const { server, proxy, asked } = await lendProxied();
      const { key } = await asked.minted();
      const attempt = nonce();
      const { commands } = await recordCommands(
        server.url,
        async () => {
          const dropped = proxy.dropReplies();
          expect(await rejection(asked.bump([key], attempt))).to.include({ sent: true });
          await dropped;
          await asked.connected();
        },
        { from: attempt },
      );
      expect(commands.map(([name]) => name)).to.deep.equal([
        'EVAL', // the bump whose reply was lost
      ]);
    });

    it('rejects a mint, a fill and a read as sent', async () => {
      const { proxy, asked } = await lendProxied();
      const { key, token } = await asked.minted();
      const entry = { key: asked.entryKey(), bytes: Buffer.from('value'), ttlMs: 60_000, guards: [0] };
      for (const call of [
        () => asked.mint([asked.generationKey()]),
        () => asked.fill([{ key, token, ttlMs: 60_000 }], entry),
        () => asked.read(key),
      ]) {
        const dropped = proxy.dropReplies();
        expect(await rejection(call())).to.include({ code: 'STORE_UNAVAILABLE', sent: true });
        await dropped;
        await asked.connected();
        expect(await asked.text(key)).to.equal(token);
      }
    });
  });

  describe('a connection that is cut', () => {
    it('rejects the commands in flight at once, long before their deadline, and is replaced', async () => {
      const { proxy, asked, direct } = await lendProxied({ limitMs: 60_000 });
      const { key, token } = await asked.minted();
      proxy.holdReplies();
      const flying = [asked.read(key), asked.mint([key]), asked.bump([key])].map(rejection);
      await eventually(async () => expect(await direct.get(key)).to.not.equal(token)); // the last of them has run
      proxy.cut();
      for (const error of await Promise.all(flying)) {
        expect(error).to.be.instanceOf(StoreUnavailableError).and.to.include({ sent: true });
      }
      proxy.releaseReplies();
      await asked.connected();
      expect(await asked.text(key)).to.equal(await direct.get(key));
    });

    it('makes the next bump wait for a new connection within its deadline', async () => {
      const { proxy, asked } = await lendProxied();
      const { key, token } = await asked.minted();
      proxy.refuse();
      proxy.cut();
      const signals: StoreSignal['kind'][] = [];
      asked.store.listen!(({ kind }) => signals.push(kind));
      await eventually(() => expect(signals).to.include('down'));
      const waiting = asked.bump([key]);
      await proxy.accept();
      expect(await waiting).to.have.length(1);
      expect(await asked.text(key)).to.not.equal(token);
    });

    it('makes the next read, mint and fill reject at once, and be sent again as soon as it is replaced', async () => {
      const { proxy, asked } = await lendProxied({ limitMs: 60_000 });
      const { key, token } = await asked.minted();
      proxy.hold(); // the next connection is accepted, and nothing comes over it
      proxy.cut();
      const signals: StoreSignal['kind'][] = [];
      asked.store.listen!(({ kind }) => signals.push(kind));
      await eventually(() => expect(signals).to.include('down'));
      const entry = { key: asked.entryKey(), bytes: Buffer.from('value'), ttlMs: 60_000, guards: [0] };
      for (const call of [
        () => asked.read(key),
        () => asked.mint([key]),
        () => asked.fill([{ key, token, ttlMs: 60_000 }], entry),
      ]) {
        const error = await rejection(call()); // long before the deadline of 60 s
        expect(error).to.be.instanceOf(StoreUnavailableError).and.to.include({ sent: false });
        expect(error.message).to.match(/^Redis was not connected\b.* Check the server's address/);
      }
      proxy.release();
      await asked.connected();
      expect(await asked.text(key)).to.equal(token);
    });

    it('rejects a read that waits for the first connection as soon as the server refuses it', async () => {
      const proxy = await startProxy((await privateRedis()).port);
      proxy.refuse();
      const asked = lendStore({ url: proxy.url, limitMs: 60_000 });
      expect(await rejection(asked.read(asked.entryKey()))).to.include({ sent: false });
    });

    it('makes a call reject as not sent at its deadline when the server stays away', async () => {
      const { proxy, asked } = await lendProxied({ limitMs: 150 });
      const signals: StoreSignal['kind'][] = [];
      asked.store.listen!(({ kind }) => signals.push(kind));
      proxy.refuse();
      proxy.cut();
      await eventually(() => expect(signals).to.include('down'));
      // The connection that was cut may be the last error at first.
      await eventually(async () => {
        const error = await rejection(asked.bump([asked.generationKey()]));
        expect(error).to.be.instanceOf(StoreUnavailableError).and.to.include({ sent: false });
        expect(error.message).to.match(
          /^Redis was not connected within 150 ms: .*ECONNREFUSED.*\. Check the server's address and the network\.$/,
        );
      });
    });
  });

  describe('a half-open connection', () => {
    it('makes a read reject at its deadline, and is replaced', async () => {
      const { proxy, asked } = await lendProxied({ limitMs: 500 });
      const { key, token } = await asked.minted();
      const signals: StoreSignal['kind'][] = [];
      asked.store.listen!(({ kind }) => signals.push(kind));
      proxy.hold();
      expect(await rejection(asked.read(key))).to.include({ code: 'DEADLINE', limitMs: 500 });
      await eventually(() => expect(signals).to.include('down'));
      proxy.cut(); // what is held is lost, as on a network that drops it
      proxy.release();
      await eventually(async () => expect(await asked.text(key)).to.equal(token));
    });

    it('is told apart from a sound one whose event loop was busy', async () => {
      const asked = lendStore();
      const { key, token } = await asked.minted();
      const signals: StoreSignal['kind'][] = [];
      asked.store.listen!(({ kind }) => signals.push(kind));
      const reading = asked.text(key);
      const untilMs = performance.now() + 2_500; // longer than a connection may be silent; the reply waits
      while (performance.now() < untilMs);
      expect(await reading).to.equal(token);
      expect(signals).to.deep.equal([]);
    });

    it('stays in use when it comes back to life, and its late reply goes to no other call', async () => {
      const { proxy, asked } = await lendProxied({ limitMs: 500 });
      const [one, two] = [await asked.minted(), await asked.minted()];
      proxy.hold();
      expect(await rejection(asked.read(one.key))).to.include({ code: 'DEADLINE' });
      proxy.release();
      expect(await asked.text(two.key)).to.equal(two.token);
      expect(proxy.connections).to.equal(1);
    });
  });

  it('a closed store rejects every call, and leaves the given client open', async () => {
    const client = lendRedis();
    const store = redisStore(client);
    const asked = new AskedStore(store, uniqueName(), 100);
    await asked.read(asked.entryKey());
    await store.close();
    expect(await rejection(asked.read(asked.entryKey()))).to.be.instanceOf(StoreUnavailableError);
    expect(await client.ping()).to.equal('PONG');
  });
});
