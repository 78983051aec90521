import { expect } from 'chai';
import sinon from 'sinon';
import { type StoreFailureEvent, type StoreSignal, StoreUnavailableError } from '../../../lib/index.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { lendCache } from '../../support/cache.js';
import { deferred, eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { lendRedis, privateRedis, uniqueName } from '../../support/redis.js';
import { bulk, type Host } from '../../support/host.js';
import { startProxy } from '../../support/proxy.js';
import { freePort } from '../../support/servers/free-port.js';
import { AskedStore } from '../../ports/asked-store.js';
import { rejection } from '../../support/rejection.js';

/** A store on this server, with its signals. */
function lendStore(url: string, limitMs = 2_000) {
  const store = redisStore(lendRedis({ url, lazyConnect: true }));
  lend({ what: 'the store', close: () => store.close() });
  const signals: StoreSignal[] = [];
  store.listen!((signal) => signals.push(signal));
  const downs = () => signals.flatMap((signal) => (signal.kind === 'down' ? [signal.error.message] : []));
  const kinds = () => signals.map(({ kind }) => kind).filter((kind) => kind !== 'warning');
  return { asked: new AskedStore(store, uniqueName(), limitMs), downs, kinds };
}

/** Answers the nth INFO with this reply, and counts. ioredis asks first, whether the server is loading; then the store. */
function answeringInfo(nth: number, reply: string): { host: Host; infos: () => number } {
  let infos = 0;
  return {
    host: ([command]) => (command!.toLowerCase() === 'info' && ++infos === nth ? { reply } : undefined),
    infos: () => infos,
  };
}

describe('the connection to Redis', () => {
  const REPLICA =
    'The Redis server is a replica, which may lag behind its primary. Pass the primary, or the Sentinels that know it.';

  describe('when the primary is made a replica', () => {
    /** A replica of a missing server: it keeps its data, and refuses writes. */
    async function lendDemoted() {
      const server = await privateRedis();
      const admin = lendRedis({ url: server.url });
      const lent = lendStore(server.url);
      const { key, token } = await lent.asked.minted();
      const absent = lent.asked.generationKey();
      await admin.replicaof('127.0.0.1', await freePort());
      return { ...lent, admin, key, token, absent };
    }

    it('a bump rejects, and the store reads nothing from that server until it is a primary again', async () => {
      const { asked, admin, key, token, downs, kinds } = await lendDemoted();
      const error = await rejection(asked.bump([key]));
      expect(error).to.be.instanceOf(StoreUnavailableError);
      expect(error.message).to.contain('READONLY');
      await eventually(() => expect(downs()).to.include(REPLICA));
      expect(await rejection(new AskedStore(asked.store, uniqueName(), 50).read(key))).to.include({ sent: false });

      await admin.replicaof('NO', 'ONE');
      await eventually(() => expect(kinds().at(-1)).to.equal('up'));
      expect(await asked.text(key)).to.equal(token);
      await asked.bump([key]);
      expect(await asked.text(key)).to.not.equal(token);
    });

    it('a bump of a generation that the replica lacks rejects, since the new primary may have it', async () => {
      const { asked, absent, downs } = await lendDemoted();
      expect(await rejection(asked.bump([absent]))).to.be.instanceOf(StoreUnavailableError);
      await eventually(() => expect(downs()).to.include(REPLICA));
    });

    it('a bump rejects and the store reconnects when READONLY stands inside a script’s error, as in Redis 6', async () => {
      const server = await privateRedis();
      let demoted = false;
      const reply =
        '-ERR Error running script (call to f_0): @user_script:20: @user_script: 20: -READONLY You can’t write.\r\n';
      const { url } = await startProxy(server.port, {
        host: ([command]) => (demoted && /^eval/i.test(command!) ? { reply } : undefined),
      });
      const { asked, kinds } = lendStore(url);
      const { key } = await asked.minted();
      demoted = true;
      expect((await rejection(asked.bump([key]))).message).to.contain('READONLY');
      demoted = false;
      await eventually(() => expect(kinds()).to.deep.equal(['up', 'down', 'up']));
      await asked.bump([key]);
    });
  });

  it('that is half-open from its beginning is left for another one, although no call waits for it', async () => {
    const server = await privateRedis();
    const proxy = await startProxy(server.port);
    const { asked, kinds } = lendStore(proxy.url);
    const { key, token } = await asked.minted();
    proxy.holdsNew = true;
    proxy.cut();
    await eventually(() => expect(kinds()).to.deep.equal(['up', 'down']));
    await eventually(() => expect(proxy.connections).to.equal(1));
    proxy.holdsNew = false;
    // Reads are rejected at once.
    await eventually(async () => expect(await asked.text(key)).to.equal(token));
  });

  describe('in the last moment of a connection, when the other side has ended it and it is not closed yet', () => {
    /** A store behind a proxy, with the client of its own, whose stream shows that moment. */
    async function lendEnding(limitMs = 5_000) {
      const server = await privateRedis();
      const proxy = await startProxy(server.port);
      const client = lendRedis({ url: proxy.url, lazyConnect: true });
      const duplicate = sinon.spy(client, 'duplicate');
      const store = redisStore(client);
      lend({ what: 'the store', close: () => store.close() });
      const asked = new AskedStore(store, uniqueName(), limitMs);
      const { key, token } = await asked.minted();
      const own = duplicate.firstCall.returnValue;
      /** Ends the connection from the server's side, and calls `work` at the `event` of its stream. */
      const endWith = async <T>(event: 'end' | 'finish', work: () => Promise<T>): Promise<T> => {
        const done = deferred<T>();
        own.stream.once(event, () => {
          expect(own.status).to.equal('ready');
          work().then(done.resolve, done.reject);
        });
        const admin = lendRedis({ url: server.url });
        await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
        return done.promise;
      };
      return { asked, proxy, key, token, endWith };
    }

    for (const event of ['end', 'finish'] as const) {
      it(`a bump at its ${event} waits for the next connection, and is carried out there`, async () => {
        const { asked, key, token, endWith } = await lendEnding();
        const [bumped] = await endWith(event, () => asked.bump([key]));
        expect(bumped).to.match(/^1\./);
        expect(bumped).to.not.equal(token);
        expect(await asked.text(key)).to.equal(bumped);
      });
    }

    it('a bump rejects at its deadline and says that it was not sent, when there is no next connection', async () => {
      const { asked, proxy, key, endWith } = await lendEnding(300);
      proxy.refuse();
      const startedAtMs = performance.now();
      const error = await endWith('finish', () => rejection(asked.bump([key])));
      expect(performance.now() - startedAtMs).to.be.above(250);
      expect(error).to.be.instanceOf(StoreUnavailableError);
      expect(error).to.include({ sent: false });
    });

    it('a caller that bumps again without a pause lets the event loop go on', async () => {
      const { asked, key, endWith } = await lendEnding();
      let attempts = 0;
      await endWith('finish', async () => {
        // A loop that never yields would hold this process for ever.
        for (; attempts < 10_000; attempts++) if (await asked.bump([key]).catch(() => false)) return;
      });
      expect(attempts).to.equal(0);
    });
  });

  describe('when INFO is answered with an error, or tells that data are loading', () => {
    const BUSY = '-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n';

    it('the store signals down, and reconnects until INFO is answered', async () => {
      const server = await privateRedis();
      const { host, infos } = answeringInfo(2, BUSY);
      const { url } = await startProxy(server.port, { host });
      const { asked, downs, kinds } = lendStore(url);
      await asked.connected();
      expect(infos()).to.equal(4);
      expect(kinds()).to.deep.equal(['down', 'up']);
      expect(downs()[0]).to.match(/^BUSY Redis is busy running a script/);
    });

    it('a read waits until the server has loaded its data', async () => {
      const server = await privateRedis();
      const loading = 'role:master\r\nloading:1\r\nloading_eta_seconds:1\r\n';
      const { host, infos } = answeringInfo(1, bulk(loading));
      const { url } = await startProxy(server.port, { host });
      const { asked, kinds } = lendStore(url);
      expect(await asked.read(asked.entryKey())).to.deep.equal([null]);
      expect(infos()).to.equal(3);
      expect(kinds()).to.deep.equal(['up']);
    });

    it('a bump waits until a script no longer keeps the server busy, and a read does not wait', async () => {
      const server = await privateRedis({ args: ['--lua-time-limit', '10'] });
      const admin = lendRedis({ url: server.url });
      await admin.ping(); // a client that connects under BUSY rejects what waits in its queue, SCRIPT KILL too
      const running = rejection(lendRedis({ url: server.url }).eval('while true do end', 0));
      await eventually(async () => expect((await rejection(admin.info())).message).to.match(/^BUSY/));
      const { asked, downs } = lendStore(server.url, 5_000);
      const bumping = asked.bump([asked.generationKey()]);
      expect(await rejection(asked.read(asked.entryKey()))).to.include({ sent: false });
      expect(downs().join(' ')).to.contain('BUSY');
      await admin.script('KILL');
      expect(await bumping).to.deep.equal(['missing']);
      expect(await asked.read(asked.entryKey())).to.deep.equal([null]);
      await running;
    });
  });

  describe('whose owner changes the options of its client', () => {
    /** A server with a password, and a store whose owner's client has it. */
    async function lendSecured() {
      const server = await privateRedis({ args: ['--requirepass', 'first'] });
      const proxy = await startProxy(server.port);
      const admin = lendRedis({ url: server.url, password: 'first' });
      const owner = lendRedis({ url: proxy.url, password: 'first', lazyConnect: true });
      const store = redisStore(owner);
      lend({ what: 'the store', close: () => store.close() });
      const asked = new AskedStore(store, uniqueName(), 500);
      await eventually(() => asked.connected());
      return { proxy, admin, owner, asked };
    }

    it('connects again with the new password, which stands there before the old one ends', async () => {
      const { proxy, admin, owner, asked } = await lendSecured();
      owner.options.password = 'second';
      await admin.config('SET', 'requirepass', 'second');
      proxy.cut();
      await eventually(() => asked.connected());
      expect(await asked.read(asked.entryKey())).to.deep.equal([null]);
    });

    it('connects again with a password that is set after the old one was refused', async () => {
      const { proxy, admin, owner, asked } = await lendSecured();
      await admin.config('SET', 'requirepass', 'second');
      proxy.cut();
      await eventually(async () => expect((await rejection(asked.connected())).message).to.match(/WRONGPASS/));
      owner.options.password = 'second';
      await eventually(() => asked.connected());
    });

    it('connects again as another user', async () => {
      const { proxy, admin, owner, asked } = await lendSecured();
      await admin.acl('SETUSER', 'app', 'on', '>token', '~*', '+@all');
      owner.options.username = 'app';
      owner.options.password = 'token';
      proxy.cut();
      await eventually(async () => {
        await asked.connected();
        expect(String(await admin.client('LIST'))).to.contain('user=app');
      });
    });

    it('keeps the settings that the store depends on', async () => {
      const { proxy, owner, asked } = await lendSecured();
      owner.options.autoResendUnfulfilledCommands = true;
      owner.options.maxRetriesPerRequest = 10;
      proxy.cut();
      await eventually(() => asked.connected());
      const dropped = proxy.dropReplies();
      expect(await rejection(asked.bump([asked.generationKey()]))).to.include({ sent: true }); // and was not sent again
      await dropped;
    });
  });

  describe('when Redis is far behind', () => {
    it('1,000 commands wait for it, and further reads go to the source at once', async () => {
      const server = await privateRedis();
      const limits = { readDeadlineMs: 60_000, breakerFailures: 0 };
      const { value, cache, rows, loads } = lendCache({ url: server.url, ...limits });
      rows.set(1, 'one');
      await value.fetch({ item: 1 });
      await cache.settled();
      const failures: StoreFailureEvent[] = [];
      cache.on('storeFailure', (event) => failures.push(event));

      server.pause();
      rows.set(1, 'newer');
      const reads: Promise<unknown>[] = [];
      for (let turn = 0; turn < 1_500; turn++) {
        reads.push(value.fetch({ item: 1 }));
        await new Promise(setImmediate);
      }
      expect(new Set(await Promise.all(reads.slice(1_000)))).to.deep.equal(new Set(['newer']));
      expect(cache.statistics.total('bypasses')).to.equal(500);
      expect(loads).to.have.length(501);
      expect(failures).to.have.length(500);
      expect(failures[0]!.error).to.be.instanceOf(StoreUnavailableError);
      expect(failures[0]!.error).to.include({
        sent: false,
        message: 'Redis is too slow: 1000 commands of this cache, the most allowed, wait for replies. Check its load.',
      });

      server.resume();
      expect(new Set(await Promise.all(reads.slice(0, 1_000)))).to.deep.equal(new Set(['one']));
      expect(cache.statistics.total('hits')).to.equal(1_000);
      expect(await value.fetch({ item: 1 })).to.equal('one');
    });

    it('a caller that bumps again without a pause lets the event loop go on', async () => {
      const server = await privateRedis();
      const { asked } = lendStore(server.url, 60_000);
      const { key } = await asked.minted();
      server.pause();
      const waiting = Array.from({ length: 1_000 }, () => asked.read(key));
      let resumed = false;
      setImmediate(() => {
        server.resume();
        resumed = true;
      });
      let attempts = 0;
      for (; attempts < 10_000; attempts++) {
        if (resumed) break;
        expect(await rejection(asked.bump([key]))).to.include({ sent: false });
      }
      expect(attempts).to.be.within(1, 5);
      await Promise.all(waiting);
    });
  });
});
