/** The local tier while the store gives no answer (`local`, `staleOnOutageMs`): docs/protocol.md, rule 14c. */
import { expect } from 'chai';
import { setImmediate } from 'node:timers/promises';
import { memoryStore, type Staleness, type Store, text } from '../../lib/index.js';
import { StoreUnavailableError } from '../../lib/ports/store.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { freshnessKey, generationKey, keyPrefix, partitionOf } from '../../lib/model/key.js';
import { nonce } from '../../lib/model/generation.js';
import { withDeadline } from '../../lib/async/deadline.js';
import { manualClock, observe } from '../../lib/testing/index.js';
import { lendCache } from '../support/cache.js';
import { recordCommands } from '../support/commands.js';
import { deferred, eventually } from '../support/deferred.js';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis, redisUrl, uniqueName } from '../support/redis.js';
import { rejection, thrown } from '../support/rejection.js';
import { lendOutbox } from '../support/relay.js';
import { createItems, openShop } from '../support/shop.js';
import { partitioned, spread } from '../support/stores.js';

const GRACE_MS = 600_000;
const VERIFY = { mode: 'verify', maxEntries: 1_000, staleOnOutageMs: GRACE_MS } as const;
const TRACK = { ...VERIFY, mode: 'track', heartbeatMs: 500 } as const;
const ID = { item: 1 };

type Options = NonNullable<Parameters<typeof lendCache>[0]>;

/** A process on the shared Redis, behind a proxy of its own: an outage for this process alone. */
async function lendProcess(options: Options = {}) {
  const proxy = await startProxy(Number(new URL(redisUrl()).port));
  const lent = lendCache({
    ...{ url: proxy.url, local: VERIFY, ttlJitter: 0, ttlMs: 3_600_000, readDeadlineMs: 200, bumpDeadlineMs: 200 },
    ...options,
  });
  const seen = observe(lent.cache);
  return {
    ...lent,
    seen,
    proxy,
    /** Ends the connections, and waits until the process has noticed. */
    async goAway() {
      proxy.refuse();
      proxy.cut();
      await eventually(() => {
        expect(lent.cache.state.connection!.isUp).to.equal(false);
        expect(lent.value.peek(ID)).to.equal(undefined);
      });
    },
    /** The value, when its fill has ended too, and how it was marked. */
    async read(ids = ID) {
      const marks: Staleness[] = [];
      const value = await lent.value.fetch(ids, { onStale: (stale) => marks.push(stale) });
      await lent.cache.settled();
      return { value, stale: marks[0]?.reason, staleForMs: marks[0]?.staleForMs };
    },
    /** Reads `was`, as the store has it, and then changes what the source has. */
    async warm(was: unknown = 'old', becomes: unknown = 'new') {
      lent.rows.set(1, was);
      await eventually(async () => {
        await lent.value.fetch(ID);
        await lent.cache.settled();
        const { outcome } = await lent.value.lookup(ID);
        expect(outcome).to.equal('hit');
      });
      lent.rows.set(1, becomes);
      lent.loads.length = 0;
    },
  };
}

const STALE = { value: 'old', stale: 'outage' };
const SOURCE = { value: 'new', stale: undefined };

describe('a local tier with a grace for outages', () => {
  for (const local of [VERIFY, TRACK]) {
    describe(`with mode ${local.mode}`, () => {
      it('serves what it holds while the connection is lost, marked as stale, without a load, and then verifies again', async () => {
        const { warm, goAway, read, loads, proxy, seen, rows, cache } = await lendProcess({ local });
        const beganMs = performance.now();
        await warm();
        await goAway();
        for (let reads = 0; reads < 20; reads++) expect(await read()).to.include(STALE);
        const { staleForMs } = await read();
        // The wall clock tells whole ms.
        expect(staleForMs).to.be.within(0, performance.now() - beganMs + 1);
        expect(loads).to.deep.equal([]);
        expect(cache.statistics.total('stale_hits', { reason: 'outage' })).to.equal(21);
        const last = seen.events('read').at(-1)!;
        expect(last).to.include({ staleHits: 1, hits: 0, bypasses: 0, misses: 0, queriesAvoided: 1 });
        expect(seen.events('staleHit').at(-1)).to.include({ path: 'item=1', reason: 'outage' });
        rows.set(1, 'old');
        await proxy.accept();
        await eventually(async () => expect((await read()).stale).to.equal(undefined));
        expect(loads).to.deep.equal([]);
      });

      it('serves it while the store is silent, and while the breaker is open', async () => {
        const { warm, proxy, read, seen } = await lendProcess({ local });
        await warm();
        proxy.hold();
        // What tracks answers by itself for one heartbeat more.
        await eventually(async () => expect(await read()).to.include(STALE));
        for (let reads = 0; reads < 5; reads++) expect(await read()).to.include(STALE);
        expect(seen.events('breakerChanged').map(({ isOpen }) => isOpen)).to.deep.equal([true]);
        proxy.cut();
      });

      it('goes to the source after a bump of its own, of the scope or above it, whether it succeeded or failed', async () => {
        for (const scope of ['item', 'global']) {
          for (const succeeds of [true, false]) {
            const { warm, goAway, read, items, cache } = await lendProcess({ local });
            await warm();
            if (!succeeds) await goAway();
            const bump = scope === 'item' ? items.bump(ID) : cache.bump();
            await bump.catch(() => {});
            if (succeeds) await goAway();
            expect(await read(), `${scope}, ${succeeds}`).to.include(SOURCE);
          }
        }
      });

      it('goes to the source for what it has not, and for what it has deleted', async () => {
        const { warm, goAway, read, value, rows, loads } = await lendProcess({ local });
        await warm();
        rows.set(2, 'two');
        await read({ item: 2 });
        await value.delete({ item: 2 });
        await goAway();
        rows.set(2, 'new');
        expect(await read({ item: 2 })).to.include(SOURCE);
        expect(await read({ item: 3 })).to.include({ value: undefined, stale: undefined });
        expect(await read()).to.include(STALE);
        expect(loads).to.deep.equal([[2], [2], [3]]);
      });

      it('goes to the source once it has seen a quarantine, a lost generation, a foreign one, or another one', async () => {
        for (const [what, change] of Object.entries({
          quarantine: (admin, key) => admin.set(key, `3!${nonce()}@${Date.now() + 600_000}`),
          loss: (admin, key) => admin.del(key),
          foreign: (admin, key) => admin.set(key, 'foreign'),
          move: (admin, key) => admin.set(key, `7.${nonce()}`),
        } satisfies Record<string, (admin: ReturnType<typeof lendRedis>, key: string) => Promise<unknown>>)) {
          const { warm, goAway, read, value, name } = await lendProcess({ local });
          await warm();
          await change(lendRedis(), generationKey(keyPrefix(name), 'item=1'));
          await value.lookup(ID);
          await goAway();
          expect(await read(), what).to.include(SOURCE);
        }
      });
    });
  }

  it('serves what was read or filled once, also where its generations were made for that', async () => {
    const lines: string[] = [];
    const log = { debug() {}, info() {}, warn: (line: string) => lines.push(line), error() {} };
    const { read, rows, goAway, loads } = await lendProcess({ log });
    rows.set(1, 'old');
    await read();
    rows.set(1, 'new');
    await goAway();
    for (let reads = 0; reads < 2; reads++) expect(await read()).to.include(STALE);
    expect(loads).to.deep.equal([[1]]);
    const stale = lines.filter((line) => line.includes('served stale'));
    expect(stale.map((line) => line.replace(/^\S+ /, ''))).to.deep.equal([
      'value at item=1 served stale: the store gives no answer',
    ]);
  });

  it('ends with the grace, counted from the last command that showed the value’s generations', async () => {
    const graceMs = 300;
    const { warm, goAway, value, loads } = await lendProcess({ local: { ...VERIFY, staleOnOutageMs: graceMs } });
    await warm();
    // A lookup verifies as a fetch does.
    await value.lookup(ID);
    const verifiedMs = performance.now();
    await goAway();
    let lastMs = -Infinity;
    await eventually(async () => {
      let isStale = false;
      const beganMs = performance.now();
      await value.fetch(ID, {
        onStale: ({ staleForMs }) => ((isStale = true), expect(staleForMs).to.be.most(graceMs)),
      });
      if (isStale) lastMs = beganMs;
      expect(isStale).to.equal(false);
    });
    expect(lastMs - verifiedMs).to.be.at.most(graceMs);
    expect(loads.length).to.be.above(0);
  });

  it('serves a value beyond its TTL within the grace, though other reads show that its generations stand', async () => {
    const clock = manualClock();
    const graceMs = 60_000;
    const { warm, goAway, read, cache, proxy } = await lendProcess({
      ...{ clock, ttlMs: 10_000, local: { ...VERIFY, staleOnOutageMs: graceMs } },
    });
    await warm();
    const other = cache.namespace('other', text()).value('name', { load: () => 'x', ttlMs: 3_600_000 });
    await other.fetch({ other: 'a' });
    clock.advance(20_000);
    await other.fetch({ other: 'a' }); // the global generation stands
    await goAway();
    const { staleForMs, ...stale } = await read();
    expect(stale).to.deep.equal(STALE);
    expect(staleForMs).to.be.within(9_999, 20_000);
    clock.advance(graceMs - 10_500);
    expect(await read()).to.include(STALE);
    clock.advance(1_000);
    expect(await read()).to.include(SOURCE);
    await proxy.accept();
  });

  it('never uses a value beyond its TTL with a reply, and then takes what the store has', async () => {
    const clock = manualClock();
    const options = { ...{ name: uniqueName(), store: memoryStore({ clock }), clock, ttlMs: 10_000 }, ttlJitter: 0 };
    const rows = new Map<number, unknown>([[1, 'old']]);
    const [one, other] = [
      lendCache({ ...options, rows, local: VERIFY }),
      lendCache({ ...options, rows, local: VERIFY }),
    ];
    const seen = observe(one.cache);
    const read = async ({ value, cache }: typeof one) => {
      const found = await value.fetch(ID);
      await cache.settled();
      return found;
    };
    for (let reads = 0; reads < 2; reads++) expect(await read(one)).to.equal('old');
    clock.advance(10_100);
    rows.set(1, 'new');
    for (const reader of [other, one]) expect(await read(reader)).to.equal('new');
    expect([one.loads, other.loads]).to.deep.equal([[[1]], [[1]]]);
    expect(seen.events('localUnverified').map(({ reason }) => reason)).to.deep.equal(['expired']);
    expect(await read(one)).to.equal('new');
    expect(one.cache.statistics.total('local_hits')).to.equal(2);
    expect(one.cache.state.local!.entries).to.equal(1);
  });

  it('gives each caller of one turn what it may change, and counts each once', async () => {
    const { warm, goAway, value, seen } = await lendProcess();
    const at = new Date(0);
    await warm({ at, plain: { n: 1 } });
    await goAway();
    const [one, two] = (await Promise.all([value.fetch(ID), value.fetch(ID)])) as { at: Date }[];
    one!.at.setTime(1);
    expect(two).to.deep.equal({ at: new Date(0), plain: { n: 1 } });
    const [first, second] = await value.fetchMany([ID, ID]);
    expect(first).to.equal(second);
    expect(seen.events('staleHit')).to.have.length(3);
  });

  it('answers a batch in part: what it does not hold is loaded', async () => {
    const { warm, goAway, value, rows, loads, seen } = await lendProcess();
    await warm();
    await goAway();
    rows.set(2, 'two');
    expect(await value.fetchMany([{ item: 2 }, ID])).to.deep.equal(['two', 'old']);
    expect(loads).to.deep.equal([[2]]);
    expect(seen.events('read').at(-1)).to.include({ staleHits: 1, bypasses: 1 });
  });

  it('leaves `lookup`, `peek` and a read in a transaction as they are', async () => {
    const { warm, goAway, value } = await lendProcess();
    await warm();
    await goAway();
    expect(await value.lookup(ID)).to.have.property('outcome', 'bypass');
    expect(value.peek(ID)).to.equal(undefined);
    expect(await value.fetch(ID, { trx: {} as never })).to.equal('new');
  });

  it('goes to the source where a server refuses a lookup at once: that is no outage', async () => {
    const store = memoryStore();
    let fails: Error | undefined;
    const read: Store['read'] = (...args) => (fails === undefined ? store.read(...args) : Promise.reject(fails));
    const { value, rows, cache } = lendCache({ store: { ...store, read }, local: VERIFY });
    rows.set(1, 'old');
    await value.fetch(ID);
    await cache.settled();
    rows.set(1, 'new');
    fails = new StoreUnavailableError('moved', false);
    expect(await value.fetch(ID)).to.equal('old');
    fails = new StoreUnavailableError('moving', false, { answered: true });
    expect(await value.fetch(ID)).to.equal('new');
  });

  it('goes to the source after a bump that ended while the lookup of the value was under way', async () => {
    const store = memoryStore();
    const replies = deferred();
    const asked = deferred();
    let mode: 'up' | 'slow' | 'down' = 'up';
    const read: Store['read'] = async (keys, deadline) => {
      if (mode === 'down') throw new StoreUnavailableError('down', false);
      const found = await store.read(keys, deadline);
      if (mode === 'slow') {
        asked.resolve();
        await replies.promise;
      }
      return found;
    };
    const bump: Store['bump'] = async (keys) => keys.map(() => 'missing');
    const { value, rows, cache, items } = lendCache({ store: { ...store, read, bump }, local: VERIFY });
    rows.set(1, 'old');
    await value.fetch(ID);
    await cache.settled();
    rows.set(1, 'new');
    mode = 'slow';
    const slow = value.fetch(ID); // its reply shows the generation from before the bump
    await asked.promise;
    await items.bump(ID);
    replies.resolve();
    expect(await slow).to.equal('old');
    mode = 'down';
    expect(await value.fetch(ID)).to.equal('new');
  });

  it('goes to the source after a transaction of its own, plain or strict, also where its bump is pending', async () => {
    const db = await lendOutbox();
    await createItems(db);
    const proxy = await startProxy(Number(new URL(redisUrl()).port));
    const { price, set, warm, cache } = openShop(db, { redis: proxy.url, local: VERIFY, bumpDeadlineMs: 200 });
    const marks: Staleness[] = [];
    const read = () => price.fetch({ item: 1 }, { onStale: (stale) => marks.push(stale) });
    for (const [i, outage] of ['after', 'before', 'after'].entries()) {
      await proxy.accept();
      await eventually(async () => {
        await warm();
        expect((await price.lookup({ item: 1 })).outcome).to.equal('hit');
      });
      const goAway = () => (proxy.refuse(), proxy.cut());
      if (outage === 'before') goAway();
      const { bump } = await set(i + 1, { strict: i === 2 });
      expect(bump).to.equal(outage === 'before' ? 'pending' : 'done');
      if (outage === 'after') goAway();
      await eventually(() => expect(cache.state.connection!.isUp).to.equal(false));
      expect([await read(), marks]).to.deep.equal([i + 1, []]);
    }
  });

  it('has values of several partitions, and of entries that depend on others', async () => {
    let isDown = false;
    const memory = memoryStore();
    const read: Store['read'] = (...args) =>
      isDown ? Promise.reject(new StoreUnavailableError('down', false)) : memory.read(...args);
    const { cache } = lendCache({ store: partitioned({ ...memory, read }, 8), local: VERIFY });
    const tags = cache.namespace('tag', text());
    let version = 1;
    const tagged = cache.namespace('thing', text()).value('tagged', {
      dependsOn: ({ thing }) => [tags.scope({ tag: thing })],
      load: () => version,
    });
    const ids = Array.from({ length: 20 }, (_, thing) => ({ thing: String(thing) }));
    await tagged.fetchMany(ids);
    await cache.settled();
    await tags.bump({ tag: '3' });
    version = 2;
    isDown = true;
    expect(await tagged.fetchMany(ids)).to.deep.equal(ids.map(({ thing }) => (thing === '3' ? 2 : 1)));
  });

  it('serves, of a batch of several commands, nothing from partitions that answer', async () => {
    let isDown = false;
    const up = memoryStore();
    const memory = memoryStore();
    const read: Store['read'] = (...args) =>
      isDown ? Promise.reject(new StoreUnavailableError('down', false)) : memory.read(...args);
    const { cache, value, rows } = lendCache({
      ...{ store: spread([up, { ...memory, read }], 2), breakerFailures: 0 },
      local: { ...VERIFY, maxEntries: 10_000 },
    });
    const isAway = ({ item }: typeof ID) => partitionOf(`item=${item}`, 2) === 1;
    const ids = Array.from({ length: 2_500 }, (_, item) => ({ item }));
    for (const { item } of ids) rows.set(item, 'old');
    await value.fetchMany(ids);
    await cache.settled();
    for (const { item } of ids) rows.set(item, 'new');
    const bumper = lendCache({ name: cache.name, store: spread([up, memory], 2) });
    await bumper.items.bumpMany(ids);
    isDown = true;
    let failures = 0;
    cache.on('storeFailure', () => failures++);
    const stale = new Set<number>();
    const values = await value.fetchMany(ids, { onStale: ({ index }) => stale.add(index) });
    expect(values).to.deep.equal(ids.map((id) => (isAway(id) ? 'old' : 'new')));
    expect([...stale]).to.deep.equal(ids.filter(isAway).map(({ item }) => item));
    expect(failures).to.equal(1);
  });

  describe('with a bound', () => {
    const BOUND_MS = 2_000;

    /** A process, and the freshness key as a relay keeps it, written by hand. */
    async function lendBounded(options: Options = {}) {
      const name = uniqueName();
      const admin = lendRedis();
      const store = redisStore(lendRedis());
      const incarnation = await withDeadline('time', 5_000, async (deadline) => {
        await store.timeMs(deadline);
        return store.incarnation!;
      });
      await store.close();
      const key = freshnessKey(keyPrefix(name), BOUND_MS);
      const renew = (ms: number) => admin.set(key, `${incarnation} ${nonce()}`, 'PX', ms);
      await renew(BOUND_MS);
      const lent = await lendProcess({ name, maxStalenessMs: BOUND_MS, ...options });
      return { ...lent, admin, renew };
    }

    for (const local of [VERIFY, TRACK]) {
      it(`ends with the freshness key that a command before the last reply told (${local.mode})`, async () => {
        const { warm, goAway, value, renew, loads, proxy } = await lendBounded({ local });
        await warm();
        let untilMs = 0;
        await eventually(async () => {
          await proxy.accept();
          untilMs = performance.now() + BOUND_MS;
          await renew(BOUND_MS);
          // A lookup follows one beside which the store told the TTL.
          for (let reads = 0; reads < 3; reads++) expect(await value.lookup(ID)).to.have.property('outcome', 'hit');
          await goAway();
          loads.length = 0;
          await value.fetch(ID);
          expect(loads).to.deep.equal([]);
        });
        let lastMs = -Infinity;
        await eventually(async () => {
          const before = loads.length;
          await value.fetch(ID);
          if (loads.length === before) lastMs = performance.now();
          expect(loads.length).to.equal(before + 1);
        });
        expect(lastMs).to.be.at.most(untilMs);
      });
    }

    it('asks for the TTL of the key beside lookups, a few times in each bound, and without the option never', async () => {
      const { value, name, warm } = await lendBounded();
      const commandsOf = async (of: typeof value) => {
        const { commands } = await recordCommands(
          redisUrl(),
          async () => {
            for (let reads = 0; reads < 50; reads++) await of.fetch(ID);
          },
          { from: name },
        );
        return commands.filter(([command]) => command !== 'MGET').length;
      };
      await warm();
      const startedMs = performance.now();
      const asked = await commandsOf(value);
      expect(asked).to.be.at.most(1 + ((performance.now() - startedMs) * 8) / BOUND_MS);
      const plain = lendCache({ name, maxStalenessMs: BOUND_MS, local: { mode: 'verify', maxEntries: 10 } });
      plain.rows.set(1, 'old');
      for (let reads = 0; reads < 2; reads++) await plain.value.fetch(ID);
      await plain.cache.settled();
      expect(await commandsOf(plain.value)).to.equal(0);
    });

    it('goes to the source without a command that told the TTL, and while no relay keeps the bound', async () => {
      const { read, goAway, rows } = await lendBounded();
      rows.set(1, 'old');
      await read(); // the first lookup: no command before it has told
      rows.set(1, 'new');
      await goAway();
      expect(await read()).to.include(SOURCE);
      const other = await lendBounded();
      await other.warm();
      await other.admin.del(freshnessKey(keyPrefix(other.name), BOUND_MS));
      expect(await other.read()).to.include(SOURCE); // not fresh: no outage, so no stale value
    });
  });

  it('warns of strict commits once, as a tier that tracks does', async () => {
    for (const [local, part] of [
      [VERIFY, `local: { staleOnOutageMs: ${GRACE_MS} }`],
      [TRACK, `local: { mode: 'track', staleOnOutageMs: ${GRACE_MS} }`],
    ] as const) {
      const { cache, seen } = await lendProcess({ local });
      for (let times = 0; times < 2; times++) await rejection(cache.transaction(async () => {}, { strict: true }));
      await setImmediate();
      const warnings = seen.events('warning').filter(({ message }) => message.includes('strict'));
      expect(warnings.map(({ message }) => message.includes(part))).to.deep.equal([true]);
    }
  });

  it('is off by default, and has a checked range', async () => {
    const server = await privateRedis();
    const { value, rows, cache } = lendCache({ url: server.url, local: { mode: 'verify', maxEntries: 10 } });
    rows.set(1, 'old');
    await value.fetch(ID);
    await cache.settled();
    rows.set(1, 'new');
    await server.kill('SIGKILL');
    expect(await value.fetch(ID)).to.equal('new');
    for (const staleOnOutageMs of [-1, 1.5, '1', 31_536_000_001, null]) {
      const local = { ...VERIFY, staleOnOutageMs: staleOnOutageMs as number };
      const { message } = thrown(() => lendCache({ store: memoryStore(), local }));
      expect(message).to.match(/^staleOnOutageMs of local must be an integer from 0 to 31536000000, but got /);
    }
  });
});
