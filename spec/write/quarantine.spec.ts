/**
 * Strict commits (docs/protocol.md, rule 12), as the store and its readers see them: these specs take the steps of a
 * writer around its COMMIT one by one. The specs of `knex/` cover the transaction itself.
 */
import { expect } from 'chai';
import { nonce } from '../../lib/model/generation.js';
import type { Store } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { generationKey, type GenerationKey, keyPrefix } from '../../lib/model/key.js';
import { withDeadline } from '../../lib/async/deadline.js';
import { observe } from '../../lib/testing/index.js';
import { before } from '../ports/before.js';
import { lendCache, watchReads } from '../support/cache.js';
import { recordCommands } from '../support/commands.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { lendRedis, redisUrl, uniqueName } from '../support/redis.js';
import { describeOnEachStore } from '../support/stores.js';

/** A writer of strict commits, with its token. */
class Writer {
  readonly #store: Store;
  readonly #token = nonce();

  constructor(store: Store) {
    this.#store = store;
  }

  /** Returns the number of keys that held the token already. */
  quarantine(keys: readonly GenerationKey[], ttlMs = 30_000): Promise<number> {
    return withDeadline('quarantine', 10_000, (deadline) => this.#store.quarantine(keys, this.#token, ttlMs, deadline));
  }

  lift(keys: readonly GenerationKey[]): Promise<readonly ('kept' | 'lapsed')[]> {
    return withDeadline('lift', 10_000, (deadline) =>
      this.#store.lift(keys, this.#token, nonce(), 3_600_000, deadline),
    );
  }
}

/** A cache, and writers on a connection of their own if the store has connections. */
function lendStrict(open: () => Store, wrap: (store: Store) => Store = (store) => store) {
  const name = uniqueName();
  const ownStore = open();
  const lent = lendCache({ name, store: wrap(ownStore), rows: new Map([[1, 'old']]), readDeadlineMs: 10_000 });
  const store = open();
  if (store !== ownStore) lend({ what: 'the writers’ store', close: () => store.close() });
  const item = generationKey(keyPrefix(name), 'item=1');
  const global = generationKey(keyPrefix(name), '');
  const evict = (key: GenerationKey) =>
    withDeadline('delete', 10_000, (deadline) =>
      store.delete([key as string as Parameters<Store['delete']>[0][number]], deadline),
    );
  return { ...lent, ...watchReads(lent), item, global, evict, writer: () => new Writer(store) };
}

describeOnEachStore('a quarantine', ({ place }) => {
  it('sends readers to the source without a fill and without a failure event', async () => {
    const { cache, fetch, outcome, bypasses, writer, item, loads, rows } = lendStrict(place().open);
    await fetch();
    expect(await outcome()).to.equal('hit');
    const seen = observe(cache);
    await writer().quarantine([item]);
    expect(await fetch()).to.equal('old'); // not committed yet
    rows.set(1, 'new');
    expect(await fetch()).to.equal('new'); // committed, not lifted
    expect(await outcome()).to.equal('quarantine');
    expect(bypasses('quarantine')).to.equal(3);
    expect(loads).to.have.length(3);
    for (const event of ['fill', 'decodeFailure', 'storeFailure'] as const) {
      expect(seen.events(event), event).to.deep.equal([]);
    }
  });

  it('makes the entry a miss after the lift, then a hit after its fill', async () => {
    const { fetch, outcome, writer, item, rows, loads } = lendStrict(place().open);
    await fetch();
    const own = writer();
    await own.quarantine([item]);
    rows.set(1, 'new');
    expect(await own.lift([item])).to.deep.equal(['kept']);
    expect(await outcome()).to.equal('miss');
    expect(await fetch()).to.equal('new');
    expect(await outcome()).to.equal('hit');
    expect(loads).to.have.length(2);
  });

  it('makes the entry a miss after an abort too', async () => {
    const { fetch, outcome, writer, item } = lendStrict(place().open);
    await fetch();
    const own = writer();
    await own.quarantine([item]);
    await own.lift([item]);
    expect(await outcome()).to.equal('miss');
    expect(await fetch()).to.equal('old');
    expect(await outcome()).to.equal('hit');
  });

  it('covers a scope that had no generation', async () => {
    const { fetch, outcome, writer, item } = lendStrict(place().open);
    const own = writer();
    await own.quarantine([item]);
    expect(await fetch()).to.equal('old');
    expect(await outcome()).to.equal('quarantine');
    await own.lift([item]);
    expect(await outcome()).to.equal('miss');
  });

  it('of an ancestor covers every scope below it, and no reader mints there', async () => {
    const { name, value, fetch, outcome, writer, global, bypasses, evict } = lendStrict(place().open);
    await fetch();
    const own = writer();
    await own.quarantine([global]);
    expect(await value.fetchMany([{ item: 1 }, { item: 2 }])).to.deep.equal(['old', undefined]);
    expect(bypasses('quarantine')).to.equal(2);
    expect(await evict(generationKey(keyPrefix(name), 'item=2'))).to.equal(0);
    await own.lift([global]);
    expect(await outcome()).to.equal('miss');
  });

  it('of one scope leaves the other scopes of a batch as they are', async () => {
    const { value, cache, writer, item, bypasses } = lendStrict(place().open);
    const ids = [{ item: 1 }, { item: 2 }];
    await value.fetchMany(ids);
    await cache.settled();
    await writer().quarantine([item]);
    expect(await value.fetchMany(ids)).to.deep.equal(['old', undefined]);
    expect(bypasses('quarantine')).to.equal(1);
    expect(cache.statistics.total('absent_hits')).to.equal(1);
  });

  it('refuses the fill of an earlier load, which later readers do not join', async () => {
    const { value, cache, fetch, outcome, writer, item, hold, loads, rows } = lendStrict(place().open);
    const release = hold();
    const early = value.fetch({ item: 1 });
    await eventually(() => expect(loads).to.have.length(1));
    const own = writer();
    await own.quarantine([item]);
    rows.set(1, 'new');
    const late = value.fetch({ item: 1 });
    await eventually(() => expect(loads).to.have.length(2));
    const later = value.fetch({ item: 1 });
    await eventually(() => expect(loads).to.have.length(3)); // late's load, which began in it, is not joined either
    release();
    expect(await Promise.all([early, late, later])).to.deep.equal(['old', 'new', 'new']);
    await cache.settled();
    expect(cache.statistics.total('refused_fills', { reason: 'moved' })).to.equal(1);
    await own.lift([item]);
    expect(await outcome()).to.equal('miss');
    expect(await fetch()).to.equal('new');
  });

  it('stands where a reader is about to mint', async () => {
    let between = async () => {};
    const { fetch, outcome, writer, item, bypasses, cache } = lendStrict(place().open, (store) =>
      before(store, 'mint', () => between()),
    );
    const own = writer();
    between = async () => void (await own.quarantine([item]));
    expect(await fetch()).to.equal('old');
    expect(bypasses('quarantine')).to.equal(1);
    expect(cache.statistics.total('decode_failures')).to.equal(0);
    between = async () => {};
    expect(await own.lift([item])).to.deep.equal(['kept']);
    expect(await outcome()).to.equal('miss');
  });

  it('stays as it is when a bump of its scope succeeds', async () => {
    const { cache, fetch, outcome, writer, item, items } = lendStrict(place().open);
    await fetch();
    const own = writer();
    await own.quarantine([item]);
    const seen = observe(cache);
    await items.bump({ item: 1 });
    expect(seen.events('bump')[0]).to.include({ bumps: 1, moved: 1, error: undefined });
    expect(await outcome()).to.equal('quarantine');
    expect(await own.quarantine([item])).to.equal(1); // the token stands
    expect(await own.lift([item])).to.deep.equal(['kept']);
    expect(await outcome()).to.equal('miss');
  });

  describe('of two overlapping writers', () => {
    for (const [which, order] of [
      ['first', [0, 1]],
      ['second', [1, 0]],
    ] as const) {
      it(`lasts until both have lifted, the ${which} writer first`, async () => {
        const { fetch, outcome, writer, item, rows } = lendStrict(place().open);
        await fetch();
        const writers = [writer(), writer()];
        for (const each of writers) expect(await each.quarantine([item])).to.equal(0);
        rows.set(1, 'by one');
        expect(await writers[order[0]]!.lift([item])).to.deep.equal(['kept']);
        expect(await outcome()).to.equal('quarantine');
        expect(await fetch()).to.equal('by one');
        rows.set(1, 'by both');
        expect(await writers[order[1]]!.lift([item])).to.deep.equal(['kept']);
        expect(await outcome()).to.equal('miss');
        expect(await fetch()).to.equal('by both');
        expect(await outcome()).to.equal('hit');
      });
    }

    it('leaves a dead writer’s token at the other’s lift, until it lapses', async () => {
      const { fetch, outcome, writer, item, rows } = lendStrict(place().open);
      await fetch();
      const [dead, alive] = [writer(), writer()];
      await dead.quarantine([item], 400);
      await alive.quarantine([item]);
      rows.set(1, 'new');
      expect(await alive.lift([item])).to.deep.equal(['kept']);
      await eventually(async () => expect(await outcome()).to.equal('miss'));
      expect(await fetch()).to.equal('new');
    });
  });

  describe('that is gone before its lift', () => {
    it('because it lapsed hides later fills at the lift, which reports the lapse', async () => {
      const { fetch, outcome, writer, item, rows } = lendStrict(place().open);
      await fetch();
      const own = writer();
      await own.quarantine([item], 50);
      await eventually(async () => expect(await outcome()).to.equal('miss'));
      await fetch();
      expect(await outcome()).to.equal('hit'); // 'old', and not from before the quarantine
      rows.set(1, 'new'); // degraded to a plain commit
      expect(await own.lift([item])).to.deep.equal(['lapsed']);
      expect(await outcome()).to.equal('miss');
      expect(await fetch()).to.equal('new');
    });

    it('because it was evicted hides later fills at the lift, which reports the lapse', async () => {
      const { fetch, outcome, writer, item, evict, rows } = lendStrict(place().open);
      await fetch();
      const own = writer();
      await own.quarantine([item]);
      await evict(item);
      expect(await outcome()).to.equal('miss');
      await fetch();
      rows.set(1, 'new');
      expect(await own.lift([item])).to.deep.equal(['lapsed']);
      expect(await fetch()).to.equal('new');
    });

    it('is detected and restored by a renewal', async () => {
      const { fetch, outcome, writer, item, evict, global } = lendStrict(place().open);
      const own = writer();
      const keys = [item, global];
      expect(await own.quarantine(keys)).to.equal(0);
      expect(await own.quarantine(keys)).to.equal(2);
      await evict(item);
      await fetch();
      expect(await own.quarantine(keys)).to.equal(1);
      expect(await outcome()).to.equal('quarantine');
      expect(await own.lift(keys)).to.deep.equal(['kept', 'kept']);
    });
  });
});

describe('a quarantine, on redisStore', () => {
  const open = () => redisStore(lendRedis({ lazyConnect: true }));

  it('costs a reader no further command: its one MGET shows the quarantine', async () => {
    const { name, outcome, writer, item, fetch } = lendStrict(open);
    await fetch();
    await writer().quarantine([item]);
    const { commands } = await recordCommands(redisUrl(), async () => expect(await outcome()).to.equal('quarantine'), {
      from: name,
    });
    expect(commands.map(([command]) => command)).to.deep.equal(['MGET']);
  });

  it('of 1,000 scopes is one command, and so is its lift', async () => {
    const { name, writer } = lendStrict(open);
    const own = writer();
    const keys = Array.from({ length: 1_000 }, (_, id) => generationKey(keyPrefix(name), `item=${id}`));
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        await own.quarantine(keys);
        expect(new Set(await own.lift(keys))).to.deep.equal(new Set(['kept']));
      },
      { from: name },
    );
    expect(commands.map(([command]) => command)).to.deep.equal([
      'EVAL', // quarantines all
      'EVAL', // lifts all
    ]);
  });
});
