import { expect } from 'chai';
import { formatGeneration, nonce, parseGeneration } from '../../lib/model/generation.js';
import { withDeadline } from '../../lib/async/deadline.js';
import { type EntryKey, type GenerationKey, leaseKey } from '../../lib/model/key.js';
import { Partitions } from '../../lib/ports/partitions.js';
import type { StorePartition } from '../../lib/ports/store.js';
import { lend } from '../support/lenders.js';
import { uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';
import { describeOnEachStoreAndProtocol } from '../support/stores.js';
import { AskedStore } from './asked-store.js';

describeOnEachStoreAndProtocol('the contract of a store', ({ place }) => {
  let asked: AskedStore<StorePartition>;
  /** Brings every key that `asked` has made `ms` closer to its expiry. */
  let elapse: (ms: number) => Promise<void>;

  beforeEach(() => {
    const at = place();
    const store = at.open();
    lend({ what: 'the store', close: () => store.close() });
    const name = uniqueName();
    asked = new AskedStore(new Partitions(store, name).first.store, name);
    elapse = (ms) => at.elapse(asked.keys, ms);
  });

  describe('read', () => {
    it('returns the values in the order of the keys, null for a missing key', async () => {
      const [a, b, c] = [asked.entryKey(), asked.entryKey(), asked.generationKey()];
      await asked.plant(b, 'second');
      const [token] = await asked.mint([c]);
      const read = await asked.read(c, a, b, c);
      expect(read.map((bytes) => bytes && String(bytes))).to.deep.equal([token, null, 'second', token]);
    });

    for (const count of [4, 600]) {
      it(`finds ${count} keys of any length`, async () => {
        const own = asked.entryKey();
        const keys = Array.from(
          { length: count },
          (_, i) => `${own}${'x'.repeat(i + 1 === count ? 2_000 : i)}` as EntryKey,
        );
        await asked.plant(keys[0]!, 'first');
        await asked.plant(keys.at(-1)!, 'last');
        const read = await asked.read(...keys);
        expect(read.map((bytes) => bytes && String(bytes))).to.deep.equal([
          'first',
          ...Array(count - 2).fill(null),
          'last',
        ]);
      });
    }

    it('tells an empty value from a missing key', async () => {
      const [empty, none] = [asked.entryKey(), asked.entryKey()];
      await asked.plant(empty, '');
      expect(await asked.read(empty, none)).to.deep.equal([Buffer.alloc(0), null]);
    });

    it('returns all 256 bytes, and a megabyte, unchanged', async () => {
      const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
      const [short, long] = [asked.entryKey(), asked.entryKey()];
      const megabyte = Buffer.alloc(1 << 20, every);
      await asked.plant(short, every);
      await asked.plant(long, megabyte);
      const read = await asked.read(short, long);
      expect(read[0]!.equals(every)).to.equal(true);
      expect(read[1]!.equals(megabyte)).to.equal(true);
    });

    it('returns a value that a later fill does not change', async () => {
      const key = asked.entryKey();
      await asked.plant(key, 'old');
      const [bytes] = await asked.read(key);
      await asked.plant(key, 'new');
      expect(String(bytes)).to.equal('old');
    });
  });

  describe('mint', () => {
    it('gives each missing generation the token, and returns the generations that stand', async () => {
      const [there, missing] = [await asked.minted(), asked.generationKey()];
      const token = formatGeneration(0, nonce());
      expect(await asked.mint([there.key, missing], token)).to.deep.equal([there.token, token]);
      expect(await asked.text(there.key)).to.equal(there.token);
      expect(await asked.text(missing)).to.equal(token);
    });

    it('lets the first of several concurrent tokens stand, and returns it to every caller', async () => {
      const key = asked.generationKey();
      const minted = await Promise.all(Array.from({ length: 20 }, () => asked.mint([key])));
      expect(new Set(minted.flat())).to.deep.equal(new Set([await asked.text(key)]));
    });

    it('mints a key that is given twice once', async () => {
      const key = asked.generationKey();
      const token = formatGeneration(0, nonce());
      expect(await asked.mint([key, key], token)).to.deep.equal([token, token]);
    });

    it('gives an evicted generation another token', async () => {
      const { key, token } = await asked.minted();
      await asked.evict(key);
      const [again] = await asked.mint([key]);
      expect(again).to.not.equal(token);
      expect(await asked.text(key)).to.equal(again);
    });

    it('gives a missing generation the TTL, and leaves the TTL of a standing one', async () => {
      const [short, long] = [await asked.minted(10_000), await asked.minted(60_000)];
      await asked.mint([short.key, long.key], undefined, 30_000);
      await elapse(9_000);
      expect(await asked.text(short.key)).to.equal(short.token);
      await elapse(2_000);
      expect(await asked.text(short.key)).to.equal(undefined);
      await elapse(40_000);
      expect(await asked.text(long.key)).to.equal(long.token);
      await elapse(10_000);
      expect(await asked.text(long.key)).to.equal(undefined);
    });

    it('leaves a foreign value as it is, and returns foreign', async () => {
      for (const foreign of FOREIGN) {
        const key = asked.generationKey();
        await asked.plant(key, foreign);
        expect(await asked.mint([key]), foreign).to.deep.equal(['foreign']);
        expect(await asked.text(key)).to.equal(foreign);
      }
    });
  });

  describe('bump', () => {
    it('gives a generation one bump more and the nonce of the attempt', async () => {
      const { key } = await asked.minted();
      for (const bumps of [1, 2, 3]) {
        const attempt = nonce();
        expect(await asked.bump([key], attempt)).to.deep.equal([formatGeneration(bumps, attempt)]);
        expect(await asked.text(key)).to.equal(formatGeneration(bumps, attempt));
      }
    });

    it('counts bumps above a hundred billion exactly', async () => {
      const key = asked.generationKey();
      await asked.plant(key, formatGeneration(123_456_789_012, nonce()));
      const attempt = nonce();
      expect(await asked.bump([key], attempt)).to.deep.equal([formatGeneration(123_456_789_013, attempt)]);
      expect(await asked.text(key)).to.equal(formatGeneration(123_456_789_013, attempt));
    });

    it('leaves a missing generation missing', async () => {
      const [missing, evicted] = [asked.generationKey(), await asked.minted()];
      await asked.evict(evicted.key);
      expect(await asked.bump([missing, evicted.key])).to.deep.equal(['missing', 'missing']);
      expect(await asked.read(missing, evicted.key)).to.deep.equal([null, null]);
    });

    it('counts every one of several concurrent bumps', async () => {
      const { key } = await asked.minted();
      const bumped = (await Promise.all(Array.from({ length: 20 }, () => asked.bump([key])))).flat();
      expect(new Set(bumped)).to.have.property('size', 20);
      expect(parseGeneration((await asked.text(key))!)!.bumps).to.equal(20);
      expect(bumped).to.include(await asked.text(key));
    });

    it('replies for each of several keys in their order', async () => {
      const [one, none, two] = [await asked.minted(), asked.generationKey(), await asked.minted()];
      const strange = asked.generationKey();
      await asked.plant(strange, 'strange');
      await asked.bump([two.key]);
      const attempt = nonce();
      expect(await asked.bump([one.key, none, strange, two.key], attempt)).to.deep.equal([
        formatGeneration(1, attempt),
        'missing',
        'foreign',
        formatGeneration(2, attempt),
      ]);
    });

    it('extends a TTL of less than half of the one given', async () => {
      const { key } = await asked.minted(29_000);
      await asked.bump([key], nonce(), 60_000);
      await elapse(50_000);
      expect(await asked.text(key)).to.not.equal(undefined);
      await elapse(11_000);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('leaves a TTL of more than half of the one given', async () => {
      const { key } = await asked.minted(31_000);
      await asked.bump([key], nonce(), 60_000);
      await elapse(30_000);
      expect(await asked.text(key)).to.not.equal(undefined);
      await elapse(1_100);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('never shortens a longer TTL', async () => {
      const { key } = await asked.minted(60_000);
      await asked.bump([key], nonce(), 10_000);
      await elapse(50_000);
      expect(await asked.text(key)).to.not.equal(undefined);
      await elapse(11_000);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('deletes a foreign value, and returns foreign', async () => {
      for (const foreign of FOREIGN) {
        const key = asked.generationKey();
        await asked.plant(key, foreign);
        expect(await asked.bump([key]), foreign).to.deep.equal(['foreign']);
        expect(await asked.text(key)).to.equal(undefined);
      }
    });
  });

  describe('fill', () => {
    const guarded = (key: GenerationKey, token: string, ttlMs = 60_000) => ({ key, token: token as never, ttlMs });
    const bytes = Buffer.from('value');

    it('stores an entry whose guards all stand', async () => {
      const [one, two] = [await asked.minted(), await asked.minted()];
      const key = asked.entryKey();
      const guards = [guarded(one.key, one.token), guarded(two.key, two.token)];
      expect(await asked.fill(guards, { key, bytes, ttlMs: 60_000, guards: [0, 1] })).to.deep.equal(['filled']);
      expect(await asked.text(key)).to.equal('value');
    });

    it('replaces an entry, and its TTL', async () => {
      const { key: guard, token } = await asked.minted();
      const key = asked.entryKey();
      await asked.plant(key, 'before', 5_000);
      await asked.fill([guarded(guard, token)], { key, bytes, ttlMs: 30_000, guards: [0] });
      await elapse(20_000);
      expect(await asked.text(key)).to.equal('value');
      await elapse(11_000);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('refuses an entry if any of its guards was bumped', async () => {
      for (const moved of [0, 1]) {
        const guards = [await asked.minted(), await asked.minted()];
        const key = asked.entryKey();
        await asked.bump([guards[moved]!.key]);
        const batch = guards.map((guard) => guarded(guard.key, guard.token));
        expect(await asked.fill(batch, { key, bytes, ttlMs: 60_000, guards: [0, 1] })).to.deep.equal(['moved']);
        expect(await asked.text(key)).to.equal(undefined);
      }
    });

    it('refuses an entry whose guard is missing, evicted, minted again or foreign', async () => {
      const token = formatGeneration(0, nonce());
      const missing = asked.generationKey();
      const evicted = await asked.minted();
      await asked.evict(evicted.key);
      const again = await asked.minted();
      await asked.evict(again.key);
      await asked.mint([again.key]);
      const foreign = asked.generationKey();
      await asked.plant(foreign, 'strange');
      const guards = [
        guarded(missing, token),
        guarded(evicted.key, evicted.token),
        guarded(again.key, again.token),
        guarded(foreign, token),
      ];
      const keys = guards.map(() => asked.entryKey());
      const entries = keys.map((key, guard) => ({ key, bytes, ttlMs: 60_000, guards: [guard] }));
      expect(await asked.fill(guards, ...entries)).to.deep.equal(['moved', 'moved', 'moved', 'moved']);
      expect(await asked.read(...keys)).to.deep.equal([null, null, null, null]);
    });

    it('refuses only the entries of a batch whose guards moved', async () => {
      const [stands, moved] = [await asked.minted(), await asked.minted()];
      await asked.bump([moved.key]);
      const keys = [asked.entryKey(), asked.entryKey(), asked.entryKey()];
      const replies = await asked.fill(
        [guarded(stands.key, stands.token), guarded(moved.key, moved.token)],
        { key: keys[0]!, bytes: Buffer.from('first'), ttlMs: 60_000, guards: [0] },
        { key: keys[1]!, bytes: Buffer.from('second'), ttlMs: 60_000, guards: [0, 1] },
        { key: keys[2]!, bytes: Buffer.from('third'), ttlMs: 60_000, guards: [0] },
      );
      expect(replies).to.deep.equal(['filled', 'moved', 'filled']);
      expect((await asked.read(...keys)).map((found) => found && String(found))).to.deep.equal([
        'first',
        null,
        'third',
      ]);
    });

    it('refuses an entry whose guard was bumped twice', async () => {
      const { key: guard, token } = await asked.minted();
      await asked.bump([guard]);
      await asked.bump([guard]);
      const key = asked.entryKey();
      expect(await asked.fill([guarded(guard, token)], { key, bytes, ttlMs: 60_000, guards: [0] })).to.deep.equal([
        'moved',
      ]);
    });

    it('lets an entry live for its TTL', async () => {
      const key = asked.entryKey();
      await asked.plant(key, 'value', 10_000);
      await elapse(9_000);
      expect(await asked.text(key)).to.equal('value');
      await elapse(1_100);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('renews the TTL of a guard with less than half of it left', async () => {
      const { key: guard, token } = await asked.minted(60_000);
      await elapse(31_000);
      await asked.fill([guarded(guard, token)], { key: asked.entryKey(), bytes, ttlMs: 1_000, guards: [0] });
      await elapse(59_000);
      expect(await asked.text(guard)).to.equal(token);
      await elapse(1_100);
      expect(await asked.text(guard)).to.equal(undefined);
    });

    it('leaves the TTL of a guard with more than half of it left', async () => {
      const { key: guard, token } = await asked.minted(60_000);
      await elapse(29_000);
      await asked.fill([guarded(guard, token)], { key: asked.entryKey(), bytes, ttlMs: 1_000, guards: [0] });
      await elapse(30_000);
      expect(await asked.text(guard)).to.equal(token);
      await elapse(1_100);
      expect(await asked.text(guard)).to.equal(undefined);
    });

    it('never shortens a guard’s TTL', async () => {
      const { key: guard, token } = await asked.minted(60_000);
      await asked.fill([guarded(guard, token, 10_000)], { key: asked.entryKey(), bytes, ttlMs: 1_000, guards: [0] });
      await elapse(59_000);
      expect(await asked.text(guard)).to.equal(token);
    });

    it('extends the TTL of a guard to what a longer entry needs', async () => {
      const { key: guard, token } = await asked.minted(10_000);
      const key = asked.entryKey();
      await asked.fill([guarded(guard, token, 60_000)], { key, bytes, ttlMs: 30_000, guards: [0] });
      await elapse(29_000);
      expect(await asked.text(key)).to.equal('value');
      expect(await asked.text(guard)).to.equal(token);
    });

    it('leaves the TTL of a guard that moved', async () => {
      const { key: guard, token } = await asked.minted(10_000);
      await asked.bump([guard], nonce(), 10_000);
      await asked.fill([guarded(guard, token)], { key: asked.entryKey(), bytes, ttlMs: 1_000, guards: [0] });
      await elapse(10_100);
      expect(await asked.text(guard)).to.equal(undefined);
    });
  });

  describe('fill as of an instant', () => {
    const bytes = Buffer.from('value');
    const fillAsOf = async (asOfMs: number) => {
      const key = asked.entryKey();
      const { replies } = await asked.fillBatch({ entries: [{ key, bytes, ttlMs: 10_000, guards: [] }], asOfMs });
      return { key, reply: replies[0] };
    };

    it('counts the TTL from the instant, however late the command arrives', async () => {
      const { key, reply } = await fillAsOf((await asked.timeMs()) - 4_000);
      expect(reply).to.equal('filled');
      await elapse(5_000);
      expect(await asked.text(key)).to.equal('value');
      await elapse(1_100);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('refuses an entry whose TTL is over, and leaves what is there', async () => {
      const asOfMs = (await asked.timeMs()) - 10_000;
      const { key, reply } = await fillAsOf(asOfMs);
      expect(reply).to.equal('expired');
      expect(await asked.text(key)).to.equal(undefined);
      await asked.plant(key, 'before');
      const entries = [{ key, bytes, ttlMs: 10_000, guards: [] }];
      expect((await asked.fillBatch({ entries, asOfMs })).replies).to.deep.equal(['expired']);
      expect(await asked.text(key)).to.equal('before');
    });

    it('counts the TTL from now at the latest, also if the clock went back since the instant', async () => {
      const { key } = await fillAsOf((await asked.timeMs()) + 3_600_000);
      await elapse(9_000);
      expect(await asked.text(key)).to.equal('value');
      await elapse(1_100);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('tells the clock of the store', async () => {
      const beforeMs = await asked.timeMs();
      const { timeMs } = await asked.fillBatch({});
      expect(timeMs).to.be.within(beforeMs, await asked.timeMs());
    });
  });

  describe('claim', () => {
    const [A, B] = [nonce(), nonce()];
    const bytes = Buffer.from('value');

    /** An entry that is not there, under a generation that stands. */
    async function absent() {
      const { key: guard, token } = await asked.minted();
      const key = asked.entryKey();
      asked.keys.push(leaseKey(key));
      const guards = [{ key: guard, token }];
      return {
        ...{ key, guard, guards },
        claim: (holder?: string, ttlMs?: number) => asked.claim(guards, [{ key, guards: [0] }], holder, ttlMs),
        async fill(lease?: string) {
          const entries = [{ key, bytes, ttlMs: 60_000, guards: [0] }];
          const { replies } = await asked.fillBatch({ guards: [{ ...guards[0]!, ttlMs: 60_000 }], entries, lease });
          return replies;
        },
      };
    }

    it('gives the lease of an entry to the first of many callers', async () => {
      const { claim } = await absent();
      const claims = (await Promise.all(Array.from({ length: 20 }, () => claim()))).flat();
      expect(claims.toSorted()).to.deep.equal([...Array<string>(19).fill('held'), 'yours']);
    });

    it('answers for each of several entries in their order', async () => {
      const stands = await asked.minted();
      const moved = await asked.minted();
      await asked.bump([moved.key]);
      const keys = Array.from({ length: 5 }, () => asked.entryKey());
      const [free, held, filled, failed, gone] = keys as [EntryKey, EntryKey, EntryKey, EntryKey, EntryKey];
      await asked.claim(
        [],
        [held, failed].map((key) => ({ key, guards: [] })),
        A,
      );
      await asked.failLeases([failed], A);
      await asked.plant(filled, 'there');
      const entries = [free, held, filled, failed].map((key) => ({ key, guards: [0] }));
      const claims = await asked.claim([stands, moved], [...entries, { key: gone, guards: [0, 1] }], B);
      expect(claims).to.deep.equal(['yours', 'held', 'filled', 'leaseless', 'moved']);
    });

    it('takes no lease without a token', async () => {
      const { key, guards, claim } = await absent();
      const look = () =>
        withDeadline('claim', 10_000, (deadline) =>
          asked.store.claim({ guards, entries: [{ key, guards: [0] }], token: undefined, ttlMs: 1 }, deadline),
        );
      expect((await look()).claims).to.deep.equal(['free']);
      expect(await claim(A)).to.deep.equal(['yours']);
      expect((await look()).claims).to.deep.equal(['held']);
    });

    it('sees an entry that was filled in the meantime, though its lease is free again', async () => {
      const { claim, fill } = await absent();
      expect(await claim(A)).to.deep.equal(['yours']);
      expect(await fill(A)).to.deep.equal(['filled']);
      expect(await claim(B)).to.deep.equal(['filled']);
    });

    it('gives the lease of an entry that is to be replaced, and not once it was replaced', async () => {
      const { key, guards, fill } = await absent();
      await asked.plant(key, 'stale');
      const replace = (replaced: string, holder: string) =>
        asked.claim(guards, [{ key, guards: [0], replaced: Buffer.from(replaced) }], holder);
      expect(await replace('other', A)).to.deep.equal(['filled']);
      expect(await replace('stal', A)).to.deep.equal(['yours']);
      expect(await replace('stal', B)).to.deep.equal(['held']);
      await fill(A);
      expect(await replace('stal', B)).to.deep.equal(['filled']);
    });

    it('lets a lease lapse after its TTL', async () => {
      const { claim } = await absent();
      await claim(A, 10_000);
      await elapse(9_000);
      expect(await claim(B)).to.deep.equal(['held']);
      await elapse(1_100);
      expect(await claim(B)).to.deep.equal(['yours']);
    });

    it('extends the lease of its holder alone', async () => {
      const { key, claim } = await absent();
      await claim(A, 10_000);
      await asked.renewLeases([key], B, 60_000);
      await asked.renewLeases([key], A, 30_000);
      await elapse(29_000);
      expect(await claim(B)).to.deep.equal(['held']);
      await elapse(1_100);
      expect(await claim(B)).to.deep.equal(['yours']);
      await asked.renewLeases([key], A, 60_000); // a holder that was suspended
      await elapse(10_100);
      expect(await claim(A)).to.deep.equal(['yours']);
    });

    it('lets every caller load without a lease after the holder failed, for the rest of the TTL', async () => {
      const { key, claim } = await absent();
      await claim(A, 10_000);
      await asked.failLeases([key], B);
      expect(await claim(B)).to.deep.equal(['held']);
      await asked.failLeases([key], A);
      expect(await claim(B)).to.deep.equal(['leaseless']);
      await elapse(10_100);
      expect(await claim(B)).to.deep.equal(['yours']);
    });

    it('leaves the lease of another holder at a fill', async () => {
      const { claim, fill, key } = await absent();
      await claim(A);
      await fill(B);
      await fill();
      await asked.delete(key);
      expect(await claim(B)).to.deep.equal(['held']);
    });

    it('releases the lease at a fill that is refused', async () => {
      const { claim, fill, guard, key } = await absent();
      await claim(A);
      await asked.bump([guard]);
      expect(await fill(A)).to.deep.equal(['moved']);
      expect(await asked.claim([], [{ key, guards: [] }], B)).to.deep.equal(['yours']);
    });

    it('tells the clock of the store', async () => {
      const beforeMs = await asked.timeMs();
      const { timeMs } = await withDeadline('claim', 10_000, (deadline) =>
        asked.store.claim({ guards: [], entries: [], token: A, ttlMs: 1_000 }, deadline),
      );
      expect(timeMs).to.be.within(beforeMs, await asked.timeMs());
    });
  });

  describe('quarantine', () => {
    const [A, B] = [nonce(), nonce()];

    it('replaces the generation by a token, and keeps the number of bumps', async () => {
      const { key } = await asked.minted();
      await asked.bump([key]);
      const beforeMs = await asked.timeMs();
      expect(await asked.quarantine([key], A, 5_000)).to.equal(0);
      const value = await asked.text(key);
      expect(value).to.match(new RegExp(`^1!${A}@[0-9]+$`));
      expect(Number(value!.split('@')[1])).to.be.within(beforeMs + 5_000, (await asked.timeMs()) + 5_000);
    });

    it('creates a missing key', async () => {
      const key = asked.generationKey();
      expect(await asked.quarantine([key], A)).to.equal(0);
      expect(await asked.text(key)).to.match(new RegExp(`^0!${A}@[0-9]+$`));
    });

    it('keeps other writers’ tokens', async () => {
      const { key } = await asked.minted();
      await asked.quarantine([key], A);
      expect(await asked.quarantine([key], B)).to.equal(0);
      expect(tokensOf(await asked.text(key))).to.have.members([A, B]);
    });

    it('renews a standing token, and returns the number of keys that held it', async () => {
      const keys = [asked.generationKey(), asked.generationKey(), asked.generationKey()];
      await asked.quarantine(keys.slice(0, 2), A, 10_000);
      await elapse(6_000);
      expect(await asked.quarantine(keys, A, 10_000)).to.equal(2);
      await elapse(6_000);
      for (const key of keys) expect(tokensOf(await asked.text(key))).to.deep.equal([A]);
    });

    it('replaces a generation minted after a lapse, and does not count it as held', async () => {
      const { key } = await asked.minted();
      await asked.quarantine([key], A, 1_000);
      await elapse(1_100);
      const [token] = await asked.mint([key]);
      expect(await asked.quarantine([key], A)).to.equal(0);
      expect(await asked.text(key)).to.not.equal(token);
    });

    it('lapses with its latest token, after which another generation is minted', async () => {
      const { key, token } = await asked.minted();
      await asked.quarantine([key], A, 20_000);
      await asked.quarantine([key], B, 10_000);
      await elapse(19_000);
      expect(tokensOf(await asked.text(key))).to.include(A);
      await elapse(1_100);
      expect(await asked.text(key)).to.equal(undefined);
      const [again] = await asked.mint([key]);
      expect(again).to.match(/^0\./).and.to.not.equal(token);
    });

    it('stays through a mint, which returns quarantined', async () => {
      const [one, free] = [await asked.minted(), asked.generationKey()];
      await asked.quarantine([one.key], A);
      const value = await asked.text(one.key);
      const token = formatGeneration(0, nonce());
      expect(await asked.mint([one.key, free], token)).to.deep.equal(['quarantined', token]);
      expect(await asked.text(one.key)).to.equal(value);
    });

    it('keeps its tokens and their instants through a bump, which counts and returns quarantined', async () => {
      const { key } = await asked.minted();
      await asked.quarantine([key], A, 10_000);
      await asked.quarantine([key], B, 20_000);
      const tokens = (await asked.text(key))!.split('!')[1];
      for (const _ of [1, 2]) expect(await asked.bump([key], nonce(), 60_000)).to.deep.equal(['quarantined']);
      expect(await asked.text(key)).to.equal(`2!${tokens}`);
      await elapse(19_000);
      expect(await asked.text(key)).to.equal(`2!${tokens}`);
      await elapse(1_100);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('makes fills under the replaced generation refused, before and after the lift', async () => {
      const { key, token } = await asked.minted();
      const fill = () =>
        asked.fill([{ key, token, ttlMs: 60_000 }], {
          ...{ key: asked.entryKey(), bytes: Buffer.from('old'), ttlMs: 60_000, guards: [0] },
        });
      await asked.quarantine([key], A);
      expect(await fill()).to.deep.equal(['moved']);
      await asked.lift([key], A);
      expect(await fill()).to.deep.equal(['moved']);
    });

    it('replaces a foreign value as it creates a missing generation', async () => {
      for (const foreign of FOREIGN) {
        const key = asked.generationKey();
        await asked.plant(key, foreign);
        expect(await asked.quarantine([key], A), foreign).to.equal(0);
        expect(tokensOf(await asked.text(key))).to.deep.equal([A]);
      }
    });
  });

  describe('lift', () => {
    const [A, B] = [nonce(), nonce()];

    it('gives a generation without other tokens one bump more and the nonce of the attempt', async () => {
      const { key } = await asked.minted();
      await asked.bump([key]);
      await asked.quarantine([key], A);
      const attempt = nonce();
      expect(await asked.lift([key], A, attempt)).to.deep.equal(['kept']);
      expect(await asked.text(key)).to.equal(formatGeneration(2, attempt));
    });

    it('gives the new generation the TTL', async () => {
      const { key } = await asked.minted();
      await asked.quarantine([key], A, 10_000);
      await asked.lift([key], A, nonce(), 50_000);
      await elapse(49_000);
      expect(await asked.text(key)).to.not.equal(undefined);
      await elapse(1_100);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('keeps other writers’ tokens, whichever writer lifts first', async () => {
      for (const [first, second] of [
        [A, B],
        [B, A],
      ] as const) {
        const { key } = await asked.minted();
        await asked.quarantine([key], A);
        await asked.quarantine([key], B);
        expect(await asked.lift([key], first)).to.deep.equal(['kept']);
        expect(tokensOf(await asked.text(key))).to.deep.equal([second]);
        expect(await asked.bump([key])).to.deep.equal(['quarantined']);
        const attempt = nonce();
        expect(await asked.lift([key], second, attempt)).to.deep.equal(['kept']);
        expect(await asked.text(key)).to.equal(formatGeneration(2, attempt));
      }
    });

    it('lets the quarantine lapse with the latest token that is left', async () => {
      const key = asked.generationKey();
      await asked.quarantine([key], A, 20_000);
      await asked.quarantine([key], B, 10_000);
      await asked.lift([key], A);
      await elapse(10_100);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('returns lapsed for a lapsed token beside a live one, which stays', async () => {
      const key = asked.generationKey();
      await plantQuarantine(key, [A, -1], [B, 10_000]);
      expect(await asked.lift([key], A)).to.deep.equal(['lapsed']);
      expect(tokensOf(await asked.text(key))).to.deep.equal([B]);
    });

    it('drops another writer’s lapsed token', async () => {
      const key = asked.generationKey();
      await plantQuarantine(key, [A, 10_000], [B, -1]);
      const attempt = nonce();
      expect(await asked.lift([key], A, attempt)).to.deep.equal(['kept']);
      expect(await asked.text(key)).to.equal(formatGeneration(1, attempt));
    });

    it('leaves an evicted key missing, and returns lapsed', async () => {
      const key = asked.generationKey();
      await asked.quarantine([key], A);
      await asked.evict(key);
      expect(await asked.lift([key], A)).to.deep.equal(['lapsed']);
      expect(await asked.text(key)).to.equal(undefined);
    });

    it('bumps a generation minted since the eviction, and returns lapsed', async () => {
      const key = asked.generationKey();
      await asked.quarantine([key], A);
      await asked.evict(key);
      await asked.mint([key]);
      const attempt = nonce();
      expect(await asked.lift([key], A, attempt)).to.deep.equal(['lapsed']);
      expect(await asked.text(key)).to.equal(formatGeneration(1, attempt));
    });

    it('leaves a quarantine without its token as it is, and returns lapsed', async () => {
      const key = asked.generationKey();
      await asked.quarantine([key], B);
      expect(await asked.lift([key], A)).to.deep.equal(['lapsed']);
      expect(tokensOf(await asked.text(key))).to.deep.equal([B]);
    });

    it('deletes a foreign value, and returns lapsed', async () => {
      for (const foreign of FOREIGN) {
        const key = asked.generationKey();
        await asked.plant(key, foreign);
        expect(await asked.lift([key], A), foreign).to.deep.equal(['lapsed']);
        expect(await asked.text(key)).to.equal(undefined);
      }
    });

    it('replies for each of several keys in their order', async () => {
      const [held, missing, other] = [asked.generationKey(), asked.generationKey(), await asked.minted()];
      await asked.quarantine([held], A);
      expect(await asked.lift([missing, held, other.key], A)).to.deep.equal(['lapsed', 'kept', 'lapsed']);
      expect(await asked.text(missing)).to.equal(undefined);
      expect(await asked.text(other.key)).to.match(/^1\./);
    });

    /** Plants a quarantine whose tokens lapse in so many ms, on a key that outlives them. */
    async function plantQuarantine(key: GenerationKey, ...tokens: [string, number][]): Promise<void> {
      const nowMs = await asked.timeMs();
      await asked.plant(key, `0!${tokens.map(([token, inMs]) => `${token}@${nowMs + inMs}`).join()}`);
    }
  });

  describe('repair', () => {
    it('bumps the global generation and writes the mark', async () => {
      const global = await asked.minted();
      const attempt = nonce();
      await asked.repair({ globalKey: global.key, mark: 'a mark', attempt });
      expect(await asked.text(global.key)).to.equal(formatGeneration(1, attempt));
      expect(await asked.readMark()).to.equal('a mark');
    });

    it('leaves a missing generation and writers’ tokens as they are, and deletes a foreign value', async () => {
      const [missing, held, strange] = [asked.generationKey(), asked.generationKey(), asked.generationKey()];
      const token = nonce();
      await asked.quarantine([held], token);
      await asked.plant(strange, 'strange');
      for (const globalKey of [missing, held, strange]) {
        await asked.repair({ globalKey, mark: globalKey });
        expect(await asked.readMark()).to.equal(globalKey);
      }
      expect(await asked.text(missing)).to.equal(undefined);
      expect(tokensOf(await asked.text(held))).to.deep.equal([token]);
      expect(await asked.text(strange)).to.equal(undefined);
    });

    it('extends the TTL of the generation to the one given, and never shortens it', async () => {
      const [short, long] = [await asked.minted(10_000), await asked.minted(60_000)];
      for (const { key } of [short, long]) await asked.repair({ globalKey: key, ttlMs: 30_000 });
      await elapse(29_000);
      expect(await asked.text(short.key)).to.not.equal(undefined);
      await elapse(1_100);
      expect(await asked.text(short.key)).to.equal(undefined);
      expect(await asked.text(long.key)).to.not.equal(undefined);
    });

    it('rejects, and writes nothing, on a server with another incarnation', async () => {
      const global = await asked.minted();
      const error = await rejection(asked.repair({ globalKey: global.key, incarnation: 'another.one' }));
      expect(error).to.include({
        name: 'StoreUnavailableError',
        sent: false,
        message:
          'Repair refused: the server is no primary, or its incarnation is not another.one. Nothing was written. ' +
          'Repair again with the incarnation that the store has now.',
      });
      expect(await asked.text(global.key)).to.equal(global.token);
      expect(await asked.readMark()).to.equal(null);
    });
  });

  describe('renew', () => {
    const BOUND_MS = 30_000;
    /** Renews the key of the bound until so many ms from now. */
    const renewFor = async (ms: number, renewal: Partial<Parameters<AskedStore['renew']>[0]> = {}) =>
      asked.renew({
        keys: [{ key: asked.freshnessKey(BOUND_MS), untilMs: (await asked.timeMs()) + ms }],
        ...renewal,
      });
    const value = () => asked.text(asked.freshnessKey(BOUND_MS));

    beforeEach(async () => {
      await asked.timeMs(); // an open connection has an incarnation
      await asked.repair();
    });

    it('writes the incarnation and the nonce, which expire at the instant', async () => {
      const own = nonce();
      expect(await renewFor(20_000, { nonce: own })).to.equal('renewed');
      expect(await value()).to.equal(`${asked.store.incarnation} ${own}`);
      await elapse(19_000);
      expect(await value()).to.not.equal(undefined);
      await elapse(1_100);
      expect(await value()).to.equal(undefined);
    });

    it('extends several keys, each to its own instant', async () => {
      const nowMs = await asked.timeMs();
      const [short, long] = [asked.freshnessKey(1_000), asked.freshnessKey(BOUND_MS)];
      await asked.renew({
        keys: [
          { key: long, untilMs: nowMs + 20_000 },
          { key: short, untilMs: nowMs + 1_000 },
        ],
      });
      await elapse(1_100);
      expect((await asked.read(short, long)).map((bytes) => bytes !== null)).to.deep.equal([false, true]);
    });

    it('gives an extended key a new value', async () => {
      await renewFor(10_000);
      const before = await value();
      await renewFor(20_000);
      expect(await value()).to.not.equal(before);
      await elapse(19_000);
      expect(await value()).to.not.equal(undefined);
    });

    it('never shortens the renewal of another relay', async () => {
      await renewFor(20_000);
      const before = await value();
      expect(await renewFor(5_000)).to.equal('renewed');
      expect(await renewFor(-1)).to.equal('renewed');
      expect(await renewFor(0)).to.equal('renewed');
      expect(await value()).to.equal(before);
      await elapse(19_000);
      expect(await value()).to.equal(before);
    });

    it('changes nothing for an instant in the past', async () => {
      expect(await renewFor(-1)).to.equal('renewed');
      expect(await value()).to.equal(undefined);
      const other = `another.one ${nonce()}`;
      await asked.plant(asked.freshnessKey(BOUND_MS), other);
      expect(await renewFor(-1)).to.equal('renewed');
      expect(await value()).to.equal(other);
    });

    it('changes nothing for an instant further away than the bound', async () => {
      expect(await renewFor(BOUND_MS + 5_000)).to.equal('renewed');
      expect(await value()).to.equal(undefined);
    });

    it('cuts an expiry further away than the bound', async () => {
      const key = asked.freshnessKey(BOUND_MS);
      await asked.plant(key, `${asked.store.incarnation} ${nonce()}`, 2 * BOUND_MS);
      await renewFor(10_000);
      await elapse(10_100);
      expect(await value()).to.equal(undefined);
    });

    it('ignores the expiry of a value that names another incarnation', async () => {
      const key = asked.freshnessKey(BOUND_MS);
      await asked.plant(key, `another.one ${nonce()}`, 20_000);
      const own = nonce();
      await renewFor(10_000, { nonce: own });
      expect(await value()).to.equal(`${asked.store.incarnation} ${own}`);
      await elapse(10_100);
      expect(await value()).to.equal(undefined);
    });

    it('changes nothing under another mark or a missing one', async () => {
      expect(await renewFor(10_000, { mark: 'another' })).to.equal('unmarked');
      await asked.evict(asked.markKey);
      expect(await renewFor(10_000)).to.equal('unmarked');
      expect(await value()).to.equal(undefined);
    });

    it('changes nothing on a server with another incarnation', async () => {
      expect(await renewFor(10_000, { incarnation: 'another.one' })).to.equal('other_server');
      expect(await value()).to.equal(undefined);
    });

    it('keeps the mark alive, which expires after an hour without renewals', async () => {
      await elapse(3_500_000);
      await renewFor(-1);
      await elapse(3_500_000);
      expect(await asked.readMark()).to.not.equal(null);
      await elapse(110_000);
      expect(await asked.readMark()).to.equal(null);
    });
  });

  describe('demand', () => {
    it('notes the bounds that readers ask for, each with the instant of its last request', async () => {
      const firstMs = await asked.timeMs();
      await asked.demand(2_000);
      await asked.demand(1_000);
      const againMs = await asked.timeMs();
      await asked.demand(2_000);
      const [first, second, ...more] = await asked.demands();
      expect(more).to.deep.equal([]);
      expect([first!.boundMs, second!.boundMs]).to.deep.equal([1_000, 2_000]);
      expect(first!.askedAtMs).to.be.within(firstMs, againMs);
      expect(second!.askedAtMs).to.be.within(againMs, await asked.timeMs());
    });

    it('drops a note that is ten minutes old', async () => {
      const nowMs = await asked.timeMs();
      await asked.plant(asked.demandsKey, `700@${nowMs - 599_000},800@${nowMs - 600_001},strange`);
      await asked.demand(900);
      expect((await asked.demands()).map(({ boundMs }) => boundMs)).to.deep.equal([700, 900]);
      await elapse(599_000);
      expect(await asked.demands()).to.have.length(2);
      await elapse(1_001);
      expect(await asked.demands()).to.deep.equal([]);
    });

    it('tells when the mark was renewed last', async () => {
      expect(await asked.demand(1_000)).to.equal(undefined);
      const markedAtMs = await asked.timeMs();
      await asked.repair();
      const renewedAtMs = (await asked.demand(1_000))!;
      // The store reads its clock twice, and a busy machine may pass some ms in between.
      expect(renewedAtMs).to.be.within(markedAtMs - 20, (await asked.timeMs()) + 1);
    });
  });

  describe('freshness', () => {
    it('tells the value of a freshness key and its TTL, and a missing key', async () => {
      const [there, missing] = [asked.freshnessKey(5_000), asked.freshnessKey(7_000)];
      await asked.plant(there, 'an incarnation', 4_000);
      await elapse(1_000);
      const { value, ttlMs } = await asked.freshness(there);
      expect(String(value)).to.equal('an incarnation');
      expect(ttlMs).to.be.within(1, 3_000);
      const none = await asked.freshness(missing);
      expect(none.value).to.equal(null);
      expect(none.ttlMs).to.be.at.most(0);
    });
  });

  describe('time', () => {
    it('is in whole ms, and never goes back', async () => {
      const timeMs = await asked.timeMs();
      expect(Number.isInteger(timeMs)).to.equal(true);
      const later = await asked.timeMs();
      expect(later).to.be.at.least(timeMs);
    });
  });

  it('has an incarnation of one word, and keeps it', async () => {
    await asked.read(asked.entryKey()); // connected
    const { incarnation } = asked.store;
    expect(incarnation).to.match(/^[^ ]+$/);
    await asked.timeMs();
    expect(asked.store.incarnation).to.equal(incarnation);
  });

  describe('delete', () => {
    it('deletes entries, and returns the number of those that existed', async () => {
      const keys = [asked.entryKey(), asked.entryKey(), asked.entryKey()];
      await asked.plant(keys[0]!, 'one');
      await asked.plant(keys[2]!, 'three');
      expect(await asked.delete(...keys)).to.equal(2);
      expect(await asked.read(...keys)).to.deep.equal([null, null, null]);
      expect(await asked.delete(...keys)).to.equal(0);
    });
  });
});

function tokensOf(value: string | undefined): string[] {
  return [...(value ?? '').matchAll(/([A-Za-z0-9_-]{16})@/g)].map(([, token]) => token!);
}

/** Values that resemble a generation or a quarantine, and are neither. */
const FOREIGN = [
  '',
  'strange',
  '7',
  '7.',
  '3.short',
  `3.${'a'.repeat(17)}`,
  `-1.${'a'.repeat(16)}`,
  `1e3.${'a'.repeat(16)}`,
  `1 .${'a'.repeat(16)}`,
  `.${'a'.repeat(16)}`,
  `3.${'a'.repeat(15)}+`,
  `3.${'a'.repeat(15)}\n`,
  `3.${'a'.repeat(16)}\n`,
  `3.${'a'.repeat(16)},writer.${'b'.repeat(16)}`,
  `3.${'a'.repeat(15)}\0`,
  `${'9'.repeat(16)}.${'a'.repeat(16)}`,
  '3!',
  `3!${'a'.repeat(16)}`,
  `3!${'a'.repeat(16)}@`,
  `3!${'a'.repeat(15)}@9`,
  `3!${'a'.repeat(17)}@9`,
  `3!${'a'.repeat(16)}@9,`,
  `3!,${'a'.repeat(16)}@9`,
  `3!${'a'.repeat(16)}@9,${'b'.repeat(16)}`,
  `3!${'a'.repeat(16)}@9\n`,
  `3!${'a'.repeat(16)}@-9`,
  `-3!${'a'.repeat(16)}@9`,
  `${'9'.repeat(16)}!${'a'.repeat(16)}@9`,
];
