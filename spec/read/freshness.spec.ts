/**
 * `maxStalenessMs`: a cache uses the store only while a relay keeps it fresh, by the freshness key. These specs write that
 * key as a relay does. The first part holds for every store; the second part is specific to Redis.
 */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import sinon from 'sinon';
import { nonce } from '../../lib/model/generation.js';
import { memoryStore, type Store } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { freshnessKey, generationKey, keyPrefix, markKey } from '../../lib/model/key.js';
import { withDeadline } from '../../lib/async/deadline.js';
import { bypassStore, manualClock } from '../../lib/testing/index.js';
import { lendCache, watchReads } from '../support/cache.js';
import { recordCommands } from '../support/commands.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { itWithoutTier } from '../support/local-tier/it-without-tier.js';
import { lendRedis, privateRedis, redisUrl, uniqueName } from '../support/redis.js';
import { describeOnEachStore } from '../support/stores.js';
import { freePort } from '../support/servers/free-port.js';
import type { Renewal } from '../../lib/ports/store.js';
import { before } from '../ports/before.js';
import { thrown } from '../support/rejection.js';

const BOUND_MS = 30_000;
const MARK = 'mark of a spec';

/** The writes of a relay to the store, by hand. */
class Relay {
  readonly key;
  readonly #store: Store;
  readonly #prefix: string;

  constructor(store: Store, name: string) {
    this.#store = store;
    this.#prefix = keyPrefix(name);
    this.key = freshnessKey(this.#prefix, BOUND_MS);
  }

  async repair(): Promise<void> {
    await this.#ask((deadline) => this.#store.timeMs(deadline)); // connected
    const { incarnation } = this.#store;
    const globalKey = generationKey(this.#prefix, '');
    await this.#ask((deadline) =>
      this.#store.repair(
        {
          ...{ globalKey, markKey: markKey(this.#prefix), mark: MARK },
          ...{ incarnation: incarnation!, attempt: nonce(), ttlMs: 60_000 },
        },
        deadline,
      ),
    );
  }

  /** Keeps the store fresh for this time. */
  async renew(ms = BOUND_MS): Promise<void> {
    const nowMs = await this.#ask((deadline) => this.#store.timeMs(deadline));
    await this.#renew([{ key: this.key, untilMs: nowMs + ms }]);
  }

  /** Renews the mark alone, as a relay without the bound does. */
  renewMark(): Promise<void> {
    return this.#renew([]);
  }

  async #renew(keys: Renewal['keys']): Promise<void> {
    const found = await this.#ask((deadline) =>
      this.#store.renew(
        {
          ...{
            markKey: markKey(this.#prefix),
            mark: MARK,
            incarnation: this.#store.incarnation!,
            asOfMs: 0,
            nonce: nonce(),
          },
          keys,
        },
        deadline,
      ),
    );
    expect(found).to.equal('renewed');
  }

  /** Removes the key, as its expiry or an eviction does. */
  async vanish(): Promise<void> {
    const key = this.key as string as Parameters<Store['delete']>[0][number];
    await this.#ask((deadline) => this.#store.delete([key], deadline));
  }

  #ask<T>(work: Parameters<typeof withDeadline<T>>[2]): Promise<T> {
    return withDeadline('relay', 10_000, work);
  }
}

/** A cache with a bound, and a relay, each with a connection of its own if the store has connections. */
function lendBounded(open: () => Store, options: NonNullable<Parameters<typeof lendCache>[0]> = {}) {
  const name = uniqueName();
  const clock = manualClock();
  const ownStore = open();
  const lent = lendCache({
    ...{ name, clock, store: ownStore, maxStalenessMs: BOUND_MS, readDeadlineMs: 10_000 },
    rows: new Map([[1, 'one']]),
    ...options,
  });
  const relayStore = open();
  if (relayStore !== ownStore) lend({ what: 'the relay’s store', close: () => relayStore.close() });
  return { ...lent, ...watchReads(lent), clock, relay: new Relay(relayStore, name) };
}

describeOnEachStore('a bound', ({ place }) => {
  it('sends every read to the source, and stores no value, while the store is not fresh', async () => {
    const { fetch, loads, bypasses, cache } = lendBounded(place().open);
    for (let read = 0; read < 3; read++) expect(await fetch()).to.equal('one');
    expect(loads).to.deep.equal([[1], [1], [1]]);
    expect(bypasses('not_fresh')).to.equal(3);
    expect(cache.statistics.total('fills')).to.equal(0);
    expect(cache.statistics.total('misses')).to.equal(0);
  });

  it('allows the store until a relay’s last renewal expires, and again after the next renewal', async () => {
    const { fetch, outcome, relay, loads } = lendBounded(place().open);
    await relay.repair();
    await relay.renew(2_000);
    expect(await fetch()).to.equal('one');
    expect(await outcome()).to.equal('hit');
    await eventually(async () => expect(await outcome()).to.equal('not_fresh'));
    expect(await fetch()).to.equal('one');
    expect(loads).to.have.length(2);
    await relay.renew();
    expect(await outcome()).to.equal('hit');
    await fetch();
    expect(loads).to.have.length(2);
  });

  it('makes a scope without a generation a miss, then fills it', async () => {
    const { fetch, outcome, relay, cache } = lendBounded(place().open);
    await relay.repair();
    await relay.renew();
    await fetch();
    expect(cache.statistics.total('misses')).to.equal(1);
    expect(await outcome()).to.equal('hit');
  });

  it('makes every entry of a batch a bypass, with one query for all', async () => {
    const { value, loads, bypasses } = lendBounded(place().open, { rows: new Map([1, 2, 3].map((id) => [id, id])) });
    expect(await value.fetchMany([1, 2, 3].map((item) => ({ item })))).to.deep.equal([1, 2, 3]);
    expect(loads).to.deep.equal([[1, 2, 3]]);
    expect(bypasses('not_fresh')).to.equal(3);
  });

  it('distrusts a freshness value that it has seen for longer than the bound, by its own clock', async () => {
    const { fetch, outcome, relay, clock } = lendBounded(place().open);
    await relay.repair();
    await relay.renew(BOUND_MS - 5_000);
    await fetch();
    clock.advance(BOUND_MS);
    expect(await outcome()).to.equal('hit');
    clock.advance(1);
    expect(await outcome()).to.equal('not_fresh');
    clock.advance(BOUND_MS);
    expect(await outcome()).to.equal('not_fresh');
    await relay.renew(); // another value
    expect(await outcome()).to.equal('hit');
  });

  it('makes a lookup a bypass if the freshness key vanishes before its second read', async () => {
    let reads = 0;
    let vanish = async () => {};
    const shared = place().open;
    const between = async () => void (++reads === 2 && (await vanish()));
    const { fetch, relay, name, bypasses, value } = lendBounded(() => before(shared(), 'read', between));
    await relay.repair();
    await relay.renew();
    await fetch();
    const other = lendCache({ name, store: shared() });
    await other.items.bump({ item: 1 });
    await other.value.fetch({ item: 1 });
    await other.cache.settled();
    vanish = () => relay.vanish();
    reads = 0;
    expect(await value.fetch({ item: 1 })).to.equal('one');
    expect(reads).to.equal(2);
    expect(bypasses('not_fresh')).to.equal(1);
  });

  it('ignores the key of another bound', async () => {
    const { relay, outcome } = lendBounded(place().open, { maxStalenessMs: BOUND_MS - 1 });
    await relay.repair();
    await relay.renew();
    expect(await outcome()).to.equal('not_fresh');
  });

  it('warns, with the remedy, that a living relay keeps other bounds, once until reads are fresh', async () => {
    const { relay, outcome, clock, cache, name } = lendBounded(place().open);
    const warnings: string[] = [];
    cache.on('warning', ({ message }) => warnings.push(message));
    const own = () => warnings.filter((message) => message.includes('bound'));
    /** A relay without this bound renews the mark, then a reader asks. */
    const look = async () => {
      await sleep(10); // so that the renewal is another instant
      await relay.renewMark();
      clock.advance(10_000);
      expect(await outcome()).to.equal('not_fresh');
      await outcome(); // its reply comes after that of the request
    };
    await relay.repair();
    for (let looks = 0; looks < 4; looks++) await look();
    expect(own()).to.deep.equal([]); // for 30 s, the bound
    for (let looks = 0; looks < 3; looks++) await look();
    expect(own()).to.deep.equal([
      `A relay is alive, but no relay keeps the bound of ${BOUND_MS} ms (maxStalenessMs): every read goes to the source. ` +
        `Run \`gencache relay --cache ${name} --max-staleness ${BOUND_MS}\`, or give startRelay \`maxStalenessMs: ${BOUND_MS}\`. ` +
        'If the relay has this bound, its events wait for longer: see its log.',
    ]);
    await relay.renew();
    expect(await outcome()).to.equal('miss');
    await relay.vanish();
    for (let looks = 0; looks < 6; looks++) await look();
    expect(own()).to.have.length(2);
  });

  it('warns of no bound while no relay is alive', async () => {
    const { relay, outcome, clock, cache } = lendBounded(place().open);
    const warnings: string[] = [];
    cache.on('warning', ({ message }) => warnings.push(message));
    await relay.repair();
    for (let looks = 0; looks < 8; looks++) {
      clock.advance(10_000);
      expect(await outcome()).to.equal('not_fresh');
      await outcome(); // its reply comes after that of the request
    }
    expect(warnings.filter((message) => message.includes('bound'))).to.deep.equal([]);
  });

  it('reads a new value after a bump', async () => {
    const { relay, fetch, outcome, items, rows } = lendBounded(place().open);
    await relay.repair();
    await relay.renew();
    await fetch();
    rows.set(1, 'newer');
    await items.bump({ item: 1 });
    expect(await fetch()).to.equal('newer');
    expect(await outcome()).to.equal('hit');
  });

  it('joins no load while the store is not fresh, so that a writer reads its own commit', async () => {
    const { fetch, hold, items, loads, rows, value } = lendBounded(place().open);
    const release = hold();
    const first = value.fetch({ item: 1 });
    await eventually(() => expect(loads).to.have.length(1));
    rows.set(1, 'newer');
    await items.bump({ item: 1 });
    const second = fetch();
    await eventually(() => expect(loads).to.have.length(2));
    release();
    expect(await Promise.all([first, second])).to.deep.equal(['one', 'newer']);
  });
});

describe('a bound, on redisStore', () => {
  const open = () => redisStore(lendRedis({ lazyConnect: true }));

  itWithoutTier('costs no further command: a hit and a bypass are one MGET each, with the freshness key', async () => {
    const { name, fetch, relay, outcome, value } = lendBounded(open);
    await relay.repair();
    await relay.renew();
    await fetch();
    const record = (work: () => Promise<unknown>) =>
      recordCommands(redisUrl(), work, { from: name }).then(({ commands }) => commands);
    const [hit, ...more] = await record(async () => expect(await value.fetch({ item: 1 })).to.equal('one'));
    expect(hit![0]).to.equal('MGET'); // the generations, the entry, the freshness key
    expect(hit!.at(-1)).to.equal(relay.key);
    expect(hit).to.have.length(1 + 2 + 1 + 1);
    expect(more).to.deep.equal([]);

    await lendRedis().del(relay.key);
    const bypassed = await record(async () => {
      for (let read = 0; read < 3; read++) expect(await outcome()).to.equal('not_fresh');
    });
    const isDemand = ([command, , , first]: readonly string[]) => command === 'EVAL' && first!.endsWith(':d');
    expect(bypassed.filter(isDemand)).to.have.length(1); // notes the bound, once in five seconds
    expect(bypassed.filter((command) => !isDemand(command)).map(([command]) => command)).to.deep.equal([
      'MGET', // the same, three times
      ...['MGET', 'MGET'],
    ]);
  });

  it('is the only reason to read a freshness key', async () => {
    const { name, fetch } = lendBounded(open, { maxStalenessMs: undefined as never });
    const { commands } = await recordCommands(redisUrl(), fetch, { from: name });
    expect(commands.flat().filter((argument) => argument.includes(':f:'))).to.deep.equal([]);
  });

  it('is checked by the second read of a lookup too', async () => {
    const { name, fetch, relay, items } = lendBounded(open);
    await relay.repair();
    await relay.renew();
    await fetch();
    await fetch();
    const other = lendCache({ name, store: open() });
    await other.items.bump({ item: 1 });
    await items.bump({ item: 1 });
    await fetch();
    await other.items.bump({ item: 1 });
    const { commands } = await recordCommands(redisUrl(), fetch, { from: name });
    const reads = commands.filter(([command]) => command === 'MGET');
    expect(reads).to.have.length(2); // under the remembered generations; under the bumped ones
    for (const read of reads) expect(read.at(-1)).to.equal(relay.key);
  });

  it('ignores a malformed freshness value', async () => {
    const { relay, outcome, fetch } = lendBounded(open);
    await relay.repair();
    await relay.renew();
    await fetch();
    const client = lendRedis();
    const sound = (await client.get(relay.key))!;
    const [incarnation, own] = sound.split(' ') as [string, string];
    const bad = [
      '',
      ' ',
      incarnation,
      `${incarnation} `,
      ` ${own}`,
      `${sound} `,
      `${incarnation}  ${own}`,
      `${sound}x`,
    ];
    for (const value of bad) {
      await client.set(relay.key, value, 'PX', 10_000);
      expect(await outcome(), value).to.equal('not_fresh');
    }
    await client.del(relay.key);
    await client.sadd(relay.key, sound);
    expect(await outcome()).to.equal('not_fresh');
    await client.set(relay.key, sound, 'PX', 10_000);
    expect(await outcome()).to.equal('hit');
  });

  it('ignores a freshness value of another incarnation', async () => {
    const { relay, outcome, fetch } = lendBounded(open);
    await relay.repair();
    await relay.renew();
    await fetch();
    const client = lendRedis();
    const [incarnation, own] = (await client.get(relay.key))!.split(' ') as [string, string];
    for (const other of [incarnation.replace(/.$/, 'x'), incarnation.toUpperCase(), incarnation.split('.')[0]]) {
      await client.set(relay.key, `${other} ${own}`, 'PX', 10_000);
      expect(await outcome(), other).to.equal('not_fresh');
    }
  });

  it('distrusts a server that restarted from an old snapshot, until a repair', async () => {
    const server = await privateRedis();
    const at = () => redisStore(lendRedis({ url: server.url, lazyConnect: true }));
    const { relay, outcome, fetch, rows, items, cache } = lendBounded(at, { bumpDeadlineMs: 10_000 });
    await relay.repair();
    await relay.renew();
    await fetch();
    const admin = lendRedis({ url: server.url });
    await admin.save();
    rows.set(1, 'newer');
    await items.bump({ item: 1 });
    expect(await fetch()).to.equal('newer');
    const incarnation = relay.key && (await admin.get(relay.key))!.split(' ')[0];

    const back = new Promise((resolve) => cache.on('storeUp', resolve));
    await server.kill('SIGKILL');
    await server.restart(); // with the entry, the generations and the freshness key from before the bump
    await back;
    expect((await admin.get(relay.key))!.split(' ')[0]).to.equal(incarnation);
    expect(await outcome()).to.equal('not_fresh');
    expect(await fetch()).to.equal('newer');

    await relay.repair(); // bumps global
    await relay.renew();
    expect(await outcome()).to.equal('miss');
    expect(await fetch()).to.equal('newer');
    expect(await outcome()).to.equal('hit');
  });

  it('checks the identity of a primary that changed its past, once for many reads, and uses it again', async () => {
    const server = await privateRedis();
    const at = () => redisStore(lendRedis({ url: server.url, lazyConnect: true }));
    const { relay, outcome, fetch, name, cache } = lendBounded(at);
    await relay.repair();
    await relay.renew();
    await fetch();
    const downs: unknown[] = [];
    cache.on('storeFailure', (event) => downs.push(event));
    const admin = lendRedis({ url: server.url });
    const before = (await admin.get(relay.key))!.split(' ')[0]!;
    // A demotion and a promotion between two commands of the cache leave every connection open.
    await admin
      .multi()
      .replicaof('127.0.0.1', await freePort())
      .replicaof('NO', 'ONE')
      .exec();
    const run = /run_id:(\w+)/.exec(await admin.info('server'))![1];
    const replid = /master_replid:(\w+)/.exec(await admin.info('replication'))![1];
    expect(`${run}.${replid}`).to.not.equal(before);
    await admin.set(relay.key, `${run}.${replid} ${nonce()}`, 'PX', 10_000);

    const { commands } = await recordCommands(
      server.url,
      async () => {
        for (let read = 0; read < 20; read++) await outcome();
        await eventually(async () => expect(await outcome()).to.equal('hit'));
      },
      { keyless: true },
    );
    expect(commands.filter(([command]) => command === 'INFO')).to.have.length(1);
    expect(
      commands.filter((command) => command.join().includes(name)).every(([command]) => command === 'MGET'),
    ).to.equal(true);
    expect(downs).to.deep.equal([]);
  });

  it('leaves a primary that became a replica under an open connection', async () => {
    const server = await privateRedis();
    const at = () => redisStore(lendRedis({ url: server.url, lazyConnect: true }));
    const { relay, outcome, fetch, cache } = lendBounded(at, { readDeadlineMs: 200 });
    await relay.repair();
    await relay.renew();
    await fetch();
    const failures: string[] = [];
    cache.on('storeFailure', ({ error }) => failures.push(error.message));
    const admin = lendRedis({ url: server.url });
    await admin
      .multi()
      .del(relay.key)
      .replicaof('127.0.0.1', await freePort())
      .exec();
    expect(await outcome()).to.equal('not_fresh');
    await eventually(async () => {
      expect(await outcome()).to.be.oneOf(['store_failure', 'breaker_open']);
      // A beat, which is a write, ends the connection too.
      expect(failures.join(' ')).to.contain('The Redis server is a replica');
    });
    await admin.replicaof('NO', 'ONE');
    await eventually(async () => expect(await outcome()).to.equal('not_fresh'));
  });

  it('warns a Redis user without the right to INFO that the cache reads the source', async () => {
    const server = await privateRedis();
    const admin = lendRedis({ url: server.url });
    await admin.call('ACL', 'SETUSER', 'app', 'on', '>secret', '~*', '+@all', '-info');
    const url = server.url.replace('redis://', 'redis://app:secret@');
    const at = () => redisStore(lendRedis({ url, lazyConnect: true }));
    const printed = sinon.spy(console, 'warn');
    const warnings: string[] = [];
    const { outcome, cache, relay } = lendBounded(at);
    cache.on('warning', ({ message }) => warnings.push(message));
    const run = /run_id:(\w+)/.exec(await admin.info('server'))![1];
    const replid = /master_replid:(\w+)/.exec(await admin.info('replication'))![1];
    await admin.set(relay.key, `${run}.${replid} ${nonce()}`, 'PX', 10_000);
    expect(await outcome()).to.equal('not_fresh');
    printed.restore();
    expect(printed.args).to.deep.equal([]);
    expect(warnings).to.include(
      'Redis did not tell its run_id and master_replid, by which relays and caches with maxStalenessMs notice that Redis ' +
        'went back in time. No relay bumps there, and such a cache reads the source; steps 0 and 1 need neither. Let the ' +
        'user run INFO, also inside scripts.',
    );
  });
});

describe('maxStalenessMs', () => {
  it('must be an integer from 100 ms to an hour', () => {
    for (const [maxStalenessMs, shown] of [
      [99, '99'],
      [3_600_001, '3600001'],
      [1_000.5, '1000.5'],
      [NaN, 'NaN'],
      [null as never, 'null'],
      ['1s' as never, "'1s'"],
    ] as const) {
      expect(thrown(() => lendCache({ store: memoryStore(), maxStalenessMs }))).to.include({
        name: 'ConfigurationError',
        message: `maxStalenessMs must be an integer from 100 to 3600000, but got ${shown}. Leave it out for no bound.`,
      });
    }
    for (const maxStalenessMs of [100, 3_600_000]) lendCache({ store: memoryStore(), maxStalenessMs });
  });

  it('has no effect on a bypass store', async () => {
    const { fetch, bypasses } = lendBounded(() => bypassStore());
    expect(await fetch()).to.equal('one');
    expect(bypasses('bypass_store')).to.equal(1);
  });
});
