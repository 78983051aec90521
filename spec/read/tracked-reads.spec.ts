/** The local tier with `mode: 'track'`: reads without a round trip, while Redis tells which generations change. */
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect } from 'chai';
import { integer, memoryStore, text } from '../../lib/index.js';
import { keyPrefix } from '../../lib/model/key.js';
import { bypassStore, manualClock, observe } from '../../lib/testing/index.js';
import { type LentCache, lendCache } from '../support/cache.js';
import { isBeat, recordCommands } from '../support/commands.js';
import { eventually } from '../support/deferred.js';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis, redisUrl, uniqueName } from '../support/redis.js';
import { thrown } from '../support/rejection.js';
import { createItems, openShop } from '../support/shop.js';
import { lendOutbox, lendRelay } from '../support/relay.js';

/** A heartbeat that a busy machine keeps. */
const LOCAL = { mode: 'track', maxEntries: 1_000, heartbeatMs: 10_000 } as const;
const ID = { item: 1 };

type Options = NonNullable<Parameters<typeof lendCache>[0]>;

/** One process that tracks generations. */
function lendTracking(options: Options = {}) {
  const lent = lendCache({ local: LOCAL, ttlJitter: 0, ttlMs: 600_000, ...options });
  const seen = observe(lent.cache);
  const counted = () => lent.cache.statistics.total('tracked_hits');
  return {
    ...lent,
    seen,
    counted,
    warnings: () => seen.events('warning').map(({ message }) => message),
    unverified: () => lent.cache.state.local!.tracking!.unverified,
    /** Reads until this process answers by itself. */
    async warm(ids = ID, entry: Pick<LentCache['value'], 'fetch'> = lent.value) {
      await eventually(async () => {
        const before = counted();
        await entry.fetch(ids);
        await lent.cache.settled();
        expect(counted()).to.equal(before + 1);
      });
    },
  };
}

/** Two processes of one cache on the shared Redis. */
function lendPair(options: Options = {}) {
  const name = uniqueName();
  const rows = new Map<number, unknown>([[1, { version: 1 }]]);
  return [lendTracking({ name, rows, ...options }), lendTracking({ name, rows, ...options })] as const;
}

/** The commands of some work but beats, without the prefix of the cache. */
async function commandsOf({ name }: { name: string }, work: () => Promise<unknown>): Promise<string[][]> {
  const { commands } = await recordCommands(redisUrl(), work, { from: name });
  return commands
    .filter((command) => !isBeat(command))
    .map((command) => command.map((part) => part.replace(keyPrefix(name), '')));
}

describe('a local tier that tracks generations', () => {
  describe('a hit', () => {
    it('costs no command, for one entry and for a batch', async () => {
      const one = lendTracking();
      for (const item of [1, 2, 3]) one.rows.set(item, { item });
      for (const item of [1, 2, 3]) await one.warm({ item });
      const commands = await commandsOf(one, async () => {
        expect(await one.value.fetch(ID)).to.deep.equal({ item: 1 });
        expect(await one.value.fetchMany([3, 1, 3, 2].map((item) => ({ item })))).to.deep.equal(
          [3, 1, 3, 2].map((item) => ({ item })),
        );
        expect(one.value.peek(ID)).to.deep.equal({ item: 1 });
      });
      expect(commands).to.deep.equal([]);
    });

    it('is a `read` with its counts to listeners, and a peek is counted alone', async () => {
      const { cache, warm, value, rows, seen } = lendTracking();
      const { statistics } = cache;
      rows.set(1, 'row');
      await warm();
      await warm({ item: 2 });
      const before = { hits: statistics.total('hits'), tracked: statistics.total('tracked_hits') };
      const reads = seen.events('read').length;
      await value.fetchMany([ID, { item: 2 }, ID], { attributes: { tenant: 'a' } });
      const read = seen.events('read')[reads];
      expect(read).to.include({ hits: 1, absentHits: 1, localHits: 2, trackedHits: 2, misses: 0, queriesAvoided: 1 });
      expect(statistics.total('tracked_hits', { tenant: 'a' })).to.equal(2);
      value.peek(ID);
      expect(seen.events('read')).to.have.length(reads + 1);
      expect(statistics.total('hits')).to.equal(before.hits + 2);
      expect(statistics.total('tracked_hits')).to.equal(before.tracked + 3);
    });

    it('counts without a listener of `read` too', async () => {
      const { cache, value } = lendCache({ local: LOCAL });
      const { statistics } = cache;
      await eventually(async () => {
        await value.fetch(ID);
        await cache.settled();
        expect(statistics.total('tracked_hits')).to.be.above(0);
      });
      const before = { tracked: statistics.total('tracked_hits'), absent: statistics.total('absent_hits') };
      await value.fetch(ID);
      value.peek(ID);
      expect(statistics.total('tracked_hits')).to.equal(before.tracked + 2);
      expect(statistics.total('absent_hits')).to.equal(before.absent + 2);
    });

    it('gives each reader what it may change, and all of them the same where none can', async () => {
      const { value, rows, warm } = lendTracking();
      rows.set(1, { name: 'one' });
      rows.set(2, { at: new Date(0) });
      await warm();
      await warm({ item: 2 });
      expect(value.peek(ID)).to.equal(await value.fetch(ID));
      expect(value.peek(ID)).to.be.frozen;
      const read = () => value.peek({ item: 2 }) as { at: Date };
      read().at.setTime(1);
      expect(read().at.getTime()).to.equal(0);
      const [first, second] = (await value.fetchMany([{ item: 2 }, { item: 2 }])) as [object, object];
      expect(first).to.equal(second);
    });

    it('may have a key, and scopes that it depends on', async () => {
      const { cache, warm, items } = lendTracking();
      const tags = cache.namespace('tag', integer());
      const things = cache.namespace('thing', integer());
      let version = 1;
      const settings = things.value('setting', { key: { name: text() }, load: ({ name }) => `${name} ${version}` });
      const tagged = things.value('tagged', {
        dependsOn: ({ thing }) => [tags.scope({ tag: Number(thing) * 10 })],
        load: () => `tagged ${version}`,
      });
      const id = { thing: 1 };
      for (const name of ['a', 'b']) await warm({ ...id, name } as never, settings as never);
      await warm(id as never, tagged as never);
      expect(['a', 'b', 'a'].map((name) => settings.peek({ ...id, name }))).to.deep.equal(['a 1', 'b 1', 'a 1']);
      expect(tagged.peek(id)).to.equal('tagged 1');
      version = 2;
      await tags.bump({ tag: 10 });
      expect(tagged.peek(id)).to.equal(undefined);
      expect(await tagged.fetch(id)).to.equal('tagged 2');
      expect(settings.peek({ ...id, name: 'a' })).to.equal('a 1');
      await items.bump(ID);
      expect(settings.peek({ ...id, name: 'a' })).to.equal('a 1');
    });

    it('ends with the TTL, by the clock of the cache', async () => {
      const clock = manualClock();
      const { value, rows, warm, loads, unverified } = lendTracking({ clock, ttlMs: 60_000 });
      rows.set(1, 'row');
      await warm();
      expect(value.peek(ID)).to.equal('row');
      clock.advance(59_000);
      expect(value.peek(ID)).to.equal('row');
      clock.advance(1_001);
      expect(value.peek(ID)).to.equal(undefined);
      expect(unverified().expired).to.equal(1);
      await value.fetch(ID);
      expect(loads.length).to.be.above(0);
    });

    it('goes with what the tier drops: for want of room, by a delete, with a forgotten scope', async () => {
      const { value, rows, warm, items } = lendTracking({ local: { ...LOCAL, maxEntries: 2 } });
      for (const item of [1, 2, 3]) rows.set(item, item);
      for (const item of [1, 2]) await warm({ item });
      expect(value.peek(ID)).to.equal(1);
      await warm({ item: 3 }); // item 2 was used least recently
      expect([1, 2, 3].map((item) => value.peek({ item }))).to.deep.equal([1, undefined, 3]);
      await value.delete(ID);
      expect(value.peek(ID)).to.equal(undefined);
      await items.bump(ID);
      const small = lendTracking({ rememberedScopesMax: 1 });
      small.rows.set(1, 'one');
      await small.warm();
      expect(small.value.peek(ID)).to.equal('one');
      await small.value.fetch({ item: 2 });
      expect(small.value.peek(ID)).to.equal(undefined);
    });

    it('lets go of what the tier drops', async () => {
      const { value, rows, warm } = lendTracking({ local: { ...LOCAL, maxEntries: 1 } });
      for (const item of [1, 2]) rows.set(item, { item });
      await warm();
      const dropped = new WeakRef(value.peek(ID) as object);
      await warm({ item: 2 });
      setFlagsFromString('--expose-gc');
      const collect = runInNewContext('gc') as () => void;
      await eventually(async () => {
        collect();
        await sleep(1);
        expect(dropped.deref()).to.equal(undefined);
      });
    });

    it('is compared with the source (`verifyRate`), and loaded anew early (`earlyRefresh`)', async () => {
      const { cache, seen, rows, warm, value, loads } = lendTracking({ verifyRate: 1, verifyDelayMs: 0 });
      rows.set(1, 'old');
      await warm();
      await cache.settled();
      rows.set(1, 'new');
      expect(await value.fetch(ID)).to.equal('old');
      await eventually(() => expect(seen.events('staleEntry')).to.have.length(1));
      await cache.settled();
      expect(value.peek(ID)).to.equal(undefined);
      expect(await value.fetch(ID)).to.equal('new');
      expect(loads.length).to.be.above(1);

      // Many reads of one turn are one comparison.
      await warm();
      await cache.settled();
      loads.length = 0;
      for (let read = 0; read < 5; read++) await value.fetch(ID);
      await cache.settled();
      expect(loads).to.deep.equal([[1]]);

      const early = lendTracking({ earlyRefresh: 100, ttlMs: 20_000 });
      let earlyLoads = 0;
      const slow = early.cache.value('slow', { load: async () => (await sleep(100), ++earlyLoads) });
      await eventually(async () => {
        expect(await slow.fetch({})).to.be.within(1, 2);
        expect(earlyLoads).to.equal(2);
      });
      expect(early.counted()).to.be.above(0);
      expect(early.unverified().expired).to.equal(0);
    });

    it('is no answer to `lookup`, to a read in a transaction, nor after close()', async () => {
      const one = lendTracking();
      one.rows.set(1, 'row');
      await one.warm();
      const commands = await commandsOf(one, () => one.value.lookup(ID));
      expect(commands).to.deep.equal([['MGET', 'g:', 'g:item=1']]);
      await one.cache.close();
      expect(thrown(() => one.value.peek(ID))).to.have.property('code', 'CLOSED');
    });
  });

  describe('a peek', () => {
    it('loads and asks nothing: undefined for what this process does not know, and for an absent row', async () => {
      const one = lendTracking();
      const commands = await commandsOf(one, async () => expect(one.value.peek(ID)).to.equal(undefined));
      expect(commands).to.deep.equal([]);
      expect(one.loads).to.deep.equal([]);
      await one.warm();
      expect(one.value.peek(ID)).to.equal(undefined);
      expect(one.counted()).to.be.above(1);
      expect(one.value.peek({ item: 'x' } as never)).to.equal(undefined);
      expect(one.value.peek({ item: 1, more: 2 } as never)).to.equal(undefined);
      expect(one.value.peek(null as never)).to.equal(undefined);
    });

    it('is undefined without tracking', async () => {
      const { value, rows, cache } = lendCache({ local: { mode: 'verify', maxEntries: 10 } });
      rows.set(1, 'row');
      for (let read = 0; read < 3; read++) await value.fetch(ID);
      expect(value.peek(ID)).to.equal(undefined);
      expect(cache.state.local).to.not.have.property('tracking');
    });
  });

  describe('after a bump', () => {
    it('of another process, answers what is new within a push', async () => {
      const [writer, reader] = lendPair();
      for (let version = 2; version < 20; version++) {
        await reader.warm();
        writer.rows.set(1, { version });
        await writer.items.bump(ID);
        await eventually(async () => expect(await reader.value.fetch(ID)).to.deep.equal({ version }));
      }
      expect(reader.unverified().changed).to.be.above(0);
    });

    it('of its own, answers what is new before the bump resolves, whatever its scope', async () => {
      const { cache, items, rows, value, warm } = lendTracking();
      const bumps = [() => items.bump(ID), () => items.bumpMany([{ item: 2 }, ID]), () => cache.bump()];
      for (let version = 0; version < 30; version++) {
        rows.set(1, version - 1);
        if (version % 5 === 0) {
          await items.bump(ID);
          await warm();
        } else await value.fetch(ID);
        rows.set(1, version);
        await bumps[version % 3]!();
        expect(value.peek(ID), `version ${version}`).to.equal(undefined);
        expect(await value.fetch(ID), `version ${version}`).to.equal(version);
      }
    });

    it('that failed, goes to the source until the bump has succeeded', async () => {
      const proxy = await startProxy(Number(new URL(redisUrl()).port));
      const { items, rows, value, warm, seen } = lendTracking({
        url: proxy.url,
        bumpDeadlineMs: 200,
        breakerRetryMs: 100,
      });
      rows.set(1, 'old');
      await warm();
      rows.set(1, 'new');
      proxy.hold();
      await items.bump(ID).catch(() => {});
      expect(value.peek(ID)).to.equal(undefined);
      expect(await value.fetch(ID)).to.equal('new');
      proxy.release();
      await eventually(() =>
        expect(seen.events('bump').some(({ origin, error }) => origin === 'retry' && !error)).to.equal(true),
      );
      expect(await value.fetch(ID)).to.equal('new');
      await warm();
      expect(value.peek(ID)).to.equal('new');
    });

    it('of a transaction, plain or strict, answers what is new before it resolves', async () => {
      const db = await lendOutbox();
      await createItems(db);
      const { cache, price, set, warm } = openShop(db, { local: LOCAL });
      const warnings: string[] = [];
      cache.on('warning', ({ message }) => message.includes('strict') && warnings.push(message));
      for (let to = 1; to <= 6; to++) {
        await eventually(async () => {
          await warm();
          expect(price.peek(ID)).to.equal(to - 1);
        });
        await set(to, { strict: to > 3 });
        expect(price.peek(ID)).to.equal(undefined);
        expect(await price.fetch(ID)).to.equal(to);
        expect(warnings.length).to.equal(to > 3 ? 1 : 0);
      }
      expect(warnings[0]).to.contain("has local: { mode: 'track' }").and.to.contain('10000 ms');
    });
  });

  it('with a bound, answers while a relay keeps it: the bound alone holds, without a heartbeat beside it', async () => {
    const db = await lendOutbox();
    const name = uniqueName();
    const boundMs = 1_000;
    // A heartbeat much longer than the bound: only the TTL of the freshness key can end an answer.
    const one = lendTracking({
      ...{ name, maxStalenessMs: boundMs, local: { mode: 'track', maxEntries: 10, heartbeatMs: 4_000 } },
      rows: new Map([[1, 'row']]),
    });
    for (let read = 0; read < 3; read++) await one.value.fetch(ID);
    expect(one.value.peek(ID)).to.equal(undefined);
    const relay = lendRelay({ db, cache: name, maxStalenessMs: [boundMs] });
    await one.warm();
    await eventually(() => expect(one.value.peek(ID)).to.equal('row'));
    await relay.stop();
    const stoppedAtMs = performance.now();
    let lastAtMs = stoppedAtMs;
    await eventually(() => {
      const beganAtMs = performance.now();
      const value = one.value.peek(ID);
      if (value !== undefined) lastAtMs = beganAtMs;
      expect(value).to.equal(undefined);
    });
    expect(lastAtMs - stoppedAtMs).to.be.at.most(boundMs);
    expect(one.unverified().heartbeat).to.be.above(0);
  });

  describe('without a store that tells', () => {
    it('on the in-memory store and on bypassStore, has reads verify, and one warning says so', async () => {
      for (const store of [memoryStore(), bypassStore()]) {
        const { cache, value, rows, warnings } = lendTracking({ store });
        rows.set(1, 'row');
        for (let read = 0; read < 3; read++) {
          expect(await value.fetch(ID)).to.equal('row');
          await cache.settled();
        }
        expect(value.peek(ID)).to.equal(undefined);
        expect(warnings()).to.have.length(1);
        expect(warnings()[0]).to.contain("as with mode 'verify'");
        expect(cache.statistics.total('tracked_hits')).to.equal(0);
      }
    });

    it('on a Redis that forbids CLIENT TRACKING, has reads verify, and one warning says so', async () => {
      const server = await privateRedis();
      const admin = lendRedis({ url: server.url });
      await admin.call('ACL', 'SETUSER', 'app', 'on', '>secret', '~*', '&*', '+@all', '-client|tracking');
      const url = server.url.replace('redis://', 'redis://app:secret@');
      const { cache, value, rows, warnings } = lendTracking({ url });
      rows.set(1, 'row');
      await value.fetch(ID);
      await eventually(() => expect(warnings().filter((one) => one.includes('tracking'))).to.have.length(1));
      for (let read = 0; read < 3; read++) await value.fetch(ID);
      expect(value.peek(ID)).to.equal(undefined);
      expect(cache.statistics.total('local_hits')).to.be.above(0);
      expect(cache.state.local!.tracking!.beatAgeMs).to.equal(undefined);
    });
  });

  it('tells what it holds, what it knows, and how old its last beat is', async () => {
    const { cache, rows, warm } = lendTracking();
    expect(cache.state.local!.tracking).to.deep.include({ scopes: 0, beatAgeMs: undefined });
    rows.set(1, 'row');
    await warm();
    const { entries, tracking } = cache.state.local!;
    expect(entries).to.equal(1);
    expect(tracking!.scopes).to.equal(2);
    expect(tracking!.beatAgeMs).to.be.within(0, 60_000);
    expect(tracking!.unverified).to.have.all.keys(
      'not_held',
      'changed',
      'heartbeat',
      'expired',
      'unbumped',
      'unregistered',
    );
  });

  describe('has options that', () => {
    it('let a tier that verifies leave its heartbeat undefined, as their type does', () => {
      const local = { mode: 'verify', maxEntries: 1, heartbeatMs: undefined } as const;
      expect(lendCache({ store: memoryStore(), local }).cache.state.local).to.deep.equal({ entries: 0, bytes: 0 });
    });

    for (const [title, local] of [
      ['reject a heartbeat of a tier that verifies', { mode: 'verify', maxEntries: 1, heartbeatMs: 1_000 }],
      ['reject an unknown mode', { mode: 'trak', maxEntries: 1 }],
      ['reject a tier that tracks without a bound', { mode: 'track' }],
      ['reject a heartbeat below 100 ms', { mode: 'track', maxEntries: 1, heartbeatMs: 99 }],
    ] as const) {
      it(title, () => {
        expect(thrown(() => lendCache({ store: memoryStore(), local: local as never }))).to.have.property(
          'code',
          'CONFIGURATION',
        );
      });
    }
  });
});
