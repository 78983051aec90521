/** What a store tells of the generations that change, on a server of its own: pushes, beats, and what comes in between. */
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import { formatGeneration, nonce } from '../../../lib/model/generation.js';
import { eventually } from '../../support/deferred.js';
import { lendRedis, privateRedis, uniqueName } from '../../support/redis.js';
import { lendTracker } from '../../support/tracker.js';

const BOUND_MS = 10_000;

describe('the tracking of generations on Redis', () => {
  let url: string;
  let admin: Redis;

  before(async () => {
    ({ url } = await privateRedis({ for: 'suite' }));
    admin = lendRedis({ url, for: 'suite' });
  });

  /** A tracker that has told of its first beat. */
  async function lendTracking(options: Parameters<typeof lendTracker>[1] = {}) {
    const lent = lendTracker(url, options);
    await lent.beats();
    return lent;
  }

  it('begins with a reset that names the incarnation, and tells of beats in the order of their sending', async () => {
    const before = performance.now();
    const { told, store, beats } = await lendTracking();
    await beats(3);
    expect(told[0]).to.deep.equal({ kind: 'reset', incarnation: store.incarnation });
    const sent = told.flatMap((one) => (one.kind === 'beat' ? [one.beat.sentAt.monotonicMs] : []));
    expect(sent).to.have.property('length').above(2);
    expect(sent).to.deep.equal(sent.toSorted((a, b) => a - b));
    expect(sent[0]).to.be.within(before, performance.now());
  });

  it('tells each change of a generation, by whatever command, and no other key of the cache', async () => {
    const { key, told, asked, beats, changes } = await lendTracking();
    await asked.plant(asked.entryKey(), 'entry');
    const set = () => admin.set(key, formatGeneration(0, nonce()), 'PX', 60_000);
    const COMMANDS: Record<string, () => Promise<unknown>> = {
      set,
      'a TTL': () => admin.pexpire(key, 50_000),
      'a TTL that is taken away': () => admin.persist(key),
      'a rename away': () => admin.rename(key, `${key}x`),
      'a rename back': () => admin.rename(`${key}x`, key),
      'a restore': async () => admin.restore(key, 0, (await admin.dumpBuffer(key)) as unknown as string, 'REPLACE'),
      'an expiry': async () => {
        await admin.pexpire(key, 1);
        await eventually(async () => expect(await admin.exists(key)).to.equal(0));
      },
      'set again': set,
      del: () => admin.del(key),
      'the same name in another database': async () => {
        const other = lendRedis({ url, db: 1 });
        await other.set(key, 'x', 'PX', 1_000);
      },
    };
    for (const [name, command] of Object.entries(COMMANDS)) {
      told.length = 0;
      await command();
      await beats();
      await eventually(() => expect(changes(), name).to.include(key));
      for (const changed of changes()) expect([key, `${key}x`], name).to.include(changed);
    }
  });

  it('tells a change before any beat that was sent after it', async () => {
    const { key, told, asked } = await lendTracking({ beatEveryMs: 1 });
    await asked.plant(key, formatGeneration(0, nonce()));
    for (let round = 0; round < 100; round++) {
      await asked.bump([key]);
      const atMs = performance.now();
      const after = () => told.findIndex((one) => one.kind === 'beat' && one.beat.sentAt.monotonicMs > atMs);
      await eventually(() => expect(after()).to.not.equal(-1));
      expect(told.findLastIndex((one) => one.kind === 'changed')).to.be.within(0, after());
      told.length = 0;
    }
  });

  it('rests on Redis to push the changes of one turn prefix by prefix, in the order of bytes', async () => {
    const prefix = `gencache:{${uniqueName()}:0}:`;
    const client = lendRedis({ url, ...{ protocol: 2 } });
    const id = String(await client.call('CLIENT', 'ID'));
    const prefixes = ['PREFIX', `${prefix}h:a`, 'PREFIX', `${prefix}g:`];
    await client.call('CLIENT', 'TRACKING', 'ON', 'REDIRECT', id, 'BCAST', ...prefixes);
    await client.subscribe('__redis__:invalidate');
    const pushed: string[] = [];
    client.on('messageBuffer', (_, keys: unknown) => pushed.push(...(keys as Buffer[]).map(String)));
    const script = "redis.call('SET', KEYS[1], '', 'PX', 1000) redis.call('SET', KEYS[2], '', 'PX', 1000)";
    await admin.eval(script, 2, `${prefix}h:abc:1`, `${prefix}g:item=1`);
    await eventually(() => expect(pushed).to.deep.equal([`${prefix}g:item=1`, `${prefix}h:abc:1`]));
  });

  it('resets everything at a flush, without waiting for a beat', async () => {
    for (const flush of [() => admin.flushall(), () => admin.flushdb()]) {
      const { told, store } = await lendTracking({ beatEveryMs: 60_000 });
      told.length = 0;
      await flush();
      await eventually(() => expect(told).to.deep.equal([{ kind: 'reset', incarnation: store.incarnation }]));
    }
  });

  it('resets everything within a beat after SWAPDB, which pushes nothing', async () => {
    const { told, store, beats, count } = await lendTracking();
    await beats(2);
    expect(count('reset')).to.equal(1);
    told.length = 0;
    await admin.swapdb(0, 5);
    await beats(1);
    const [first] = told.filter(({ kind }) => kind !== 'changed');
    // A beat that Redis received before the swap may come first.
    if (first!.kind === 'beat') told.splice(told.indexOf(first!), 1);
    expect(told.find(({ kind }) => kind !== 'changed')).to.deep.equal({
      kind: 'reset',
      incarnation: store.incarnation,
    });
    await admin.swapdb(0, 5);
  });

  it('goes on when a beat is evicted, which pushes its key a second time', async () => {
    const { name, beats, count } = await lendTracking();
    for (let round = 0; round < 5; round++) {
      for (const beat of await admin.keys(`gencache:{${name}:0}:h:*`)) await admin.del(beat);
      await beats(2);
    }
    expect(count('reset')).to.equal(1);
  });

  it('tells with each beat the freshness key as it was then, and its TTL', async () => {
    const { asked, told, beats } = await lendTracking({ boundMs: BOUND_MS });
    const last = () => told.findLast((one) => one.kind === 'beat')!.beat.freshness!;
    expect(last()).to.deep.equal({ value: null, ttlMs: 0 });
    await asked.plant(asked.freshnessKey(BOUND_MS), 'incarnation nonce', 5_000);
    await beats(2);
    expect(String(last().value)).to.equal('incarnation nonce');
    expect(last().ttlMs).to.be.within(1, 5_000);
    await admin.del(asked.freshnessKey(BOUND_MS));
    await admin.lpush(asked.freshnessKey(BOUND_MS), 'of another type');
    await beats(2);
    expect(last()).to.deep.equal({ value: null, ttlMs: 0 });
  });

  it('tells changes and no beats while the memory of Redis is full under noeviction, and both after that', async () => {
    const { key, told, asked, beats, errors } = await lendTracking();
    await asked.plant(key, formatGeneration(0, nonce()));
    const refused = async () => Number(/errorstat_OOM:count=(\d+)/.exec(await admin.info('errorstats'))?.[1] ?? 0);
    await admin.config('SET', 'maxmemory-policy', 'noeviction');
    await admin.config('SET', 'maxmemory', '1');
    try {
      await eventually(async () => expect(await refused()).to.be.above(0));
      told.length = 0;
      await asked.bump([key]);
      const before = await refused();
      await eventually(async () => expect(await refused()).to.be.above(before + 2));
      await eventually(() => expect(told).to.deep.equal([{ kind: 'changed', keys: [key] }]));
    } finally {
      await admin.config('SET', 'maxmemory', '0');
    }
    await beats(2);
    expect(errors()).to.deep.equal([]);
  });

  it('ends with close(), which leaves no connection, no timer and no beat', async () => {
    const { tracking, told, name } = await lendTracking();
    const connections = async () =>
      String(await admin.client('LIST'))
        .split('\n')
        .filter((line) => /flags=\S*t/.test(line));
    expect(await connections()).to.not.be.empty;
    tracking.close();
    told.length = 0;
    await eventually(async () => expect(await admin.keys(`gencache:{${name}:0}:h:*`)).to.deep.equal([]));
    expect(told).to.deep.equal([]);
    await eventually(async () => expect(await connections()).to.deep.equal([]));
  });

  describe('whose connection is lost', () => {
    it('is reset at once, and tracks on the next connection: CLIENT KILL of the tracking connection alone', async () => {
      const { told, store, key, asked, beats, changes } = await lendTracking();
      const { incarnation } = store;
      const lines = String(await admin.client('LIST')).split('\n');
      const id = /^id=(\d+)/.exec(lines.find((line) => /flags=\S*t/.test(line))!)![1]!;
      told.length = 0;
      await admin.call('CLIENT', 'KILL', 'ID', id);
      await eventually(() => expect(told).to.deep.include({ kind: 'reset', incarnation: undefined }));
      await beats(2);
      expect(told).to.deep.include({ kind: 'reset', incarnation });
      await asked.minted();
      await eventually(() => expect(changes()).to.not.include(key).and.not.to.be.empty);
    });

    it('is left when tracking is turned off under it', async () => {
      const { told, trackingClient, beats } = await lendTracking();
      await trackingClient.unsubscribe();
      await trackingClient.call('CLIENT', 'TRACKING', 'OFF');
      await trackingClient.subscribe('__redis__:invalidate');
      told.length = 0;
      await beats(2);
      expect(told.filter(({ kind }) => kind === 'reset')[0]).to.deep.equal({ kind: 'reset', incarnation: undefined });
    });
  });

  describe('for a user whom Redis refuses a command', () => {
    const RIGHTS = ['~*', '&*', '+@all'];
    for (const [without, refused] of [
      ['-client|tracking', /NOPERM.*client\|tracking/],
      ['-client|id', /NOPERM.*client\|id/],
      ['-subscribe', /NOPERM.*subscribe/],
      ['resetchannels', /NOPERM.*channel/],
      ['-info', /Let the user run INFO/],
    ] as const) {
      it(`is refused once, while commands go on: ${without}`, async () => {
        const user = uniqueName('u');
        await admin.call('ACL', 'SETUSER', user, 'on', '>secret', ...RIGHTS, without);
        const { errors, told, asked } = lendTracker(url.replace('//', `//${user}:secret@`));
        await eventually(() => expect(errors()).to.have.length(1));
        expect(errors()[0]).to.match(refused);
        await asked.minted();
        expect(told.filter(({ kind }) => kind === 'beat')).to.deep.equal([]);
      });
    }

    it('is refused if it may not write beats', async () => {
      const user = uniqueName('u');
      await admin.call('ACL', 'SETUSER', user, 'on', '>secret', '&*', '+@all', '~*:g:*');
      const { errors } = lendTracker(url.replace('//', `//${user}:secret@`));
      await eventually(() => expect(errors()).to.have.length(1));
      expect(errors()[0]).to.contain('NOPERM');
    });
  });
});
