/** The process that holds a lease is killed, or stopped and resumed, while others wait for its load. */
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import { GenerationalCache } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { lendRedis, privateRedis, uniqueName } from '../support/redis.js';
import { runProgram } from '../support-specs/programs/run.js';

describe('the holder of a lease', () => {
  let url: string;
  let admin: Redis;

  before(async () => {
    ({ url } = await privateRedis({ for: 'suite' }));
    admin = lendRedis({ url, for: 'suite' });
  });

  beforeEach(() => admin.set('version', 1));

  /** A holder in a process of its own, and a cache of this process whose reader waits for it. */
  async function lendHeld(loadMs: number) {
    const name = uniqueName();
    const holder = runProgram('spec/programs/lease-holder.ts', [url, name, String(loadMs)]);
    expect(await holder.line()).to.equal('loading');
    const cache = new GenerationalCache({
      ...{ name, store: redisStore(lendRedis({ url, lazyConnect: true })), readDeadlineMs: READ_DEADLINE_MS },
      // Longer than the spec: only the end of the lease ends the wait.
      loadSoftTimeoutMs: 60_000,
    });
    lend({ what: 'the cache', close: () => cache.close() });
    let loads = 0;
    const value = cache.one('value', {
      async load() {
        loads++;
        return [{ version: Number(await admin.get('version')) }];
      },
      by: () => ({}),
    });
    const readers = Array.from({ length: 20 }, () => value.fetch({}));
    await eventually(() => expect(cache.state.loads.elsewhere).to.equal(1));
    return { holder, cache, value, readers, loads: () => loads };
  }

  it('that is killed costs the others its lease, and one load', async () => {
    const { holder, readers, loads } = await lendHeld(60_000);
    holder.child.kill('SIGKILL');
    expect(await Promise.all(readers)).to.deep.equal(Array(20).fill({ version: 1 }));
    expect(loads()).to.equal(1);
  });

  it('that is stopped and resumed after its lease has passed on fills nothing that a reader sees', async () => {
    const { holder, cache, value, readers, loads } = await lendHeld(300);
    holder.child.kill('SIGSTOP');
    expect(await Promise.all(readers)).to.deep.equal(Array(20).fill({ version: 1 }));
    expect(loads()).to.equal(1);
    await admin.set('version', 2);
    await cache.bump();
    expect(await value.fetch({})).to.deep.equal({ version: 2 });
    await cache.settled();
    holder.child.kill('SIGCONT');
    expect(await holder.line()).to.equal('loaded 1'); // for its own caller, who asked before the bump
    expect(await value.lookup({})).to.deep.include({ outcome: 'hit', value: { version: 2 } });
    expect(loads()).to.equal(2);
  });

  it('that is stopped and resumed without a bump in between replaces the entry by a value of the same vector', async () => {
    const { holder, value, readers } = await lendHeld(300);
    holder.child.kill('SIGSTOP');
    await Promise.all(readers);
    holder.child.kill('SIGCONT');
    expect(await holder.line()).to.equal('loaded 1');
    expect(await value.lookup({})).to.deep.include({ outcome: 'hit', value: { version: 1 } });
    const leases = await admin.keys('*:l:*');
    expect(leases).to.deep.equal([]); // it released no lease of another, and left none
  });
});
