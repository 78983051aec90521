import { expect } from 'chai';
import { bumpsOf, generation, nonce, parseGeneration } from '../../lib/generation.js';
import type { GenerationKey } from '../../lib/key.js';
import type { AskedStore } from './asked-store.js';

export interface StoreUnderTest {
  readonly asked: AskedStore;
  /** Lets time pass for every key that `asked` has made. */
  elapse(ms: number): Promise<void>;
}

/** The contract that every store keeps: the same specs run on each. `make` is called in a spec. */
export function describeStore(name: string, make: () => Promise<StoreUnderTest>): void {
  describe(`${name} keeps the contract of a store`, () => {
    let asked: AskedStore;
    let elapse: StoreUnderTest['elapse'];

    beforeEach(async () => {
      ({ asked, elapse } = await make());
    });

    describe('read', () => {
      it('gives the values in the order of the keys, null where nothing is', async () => {
        const [a, b, c] = [asked.entryKey(), asked.entryKey(), asked.generationKey()];
        await asked.plant(b, 'second');
        const [token] = await asked.mint([c]);
        const read = await asked.read(c, a, b, c);
        expect(read.map((bytes) => bytes && String(bytes))).to.deep.equal([token, null, 'second', token]);
      });

      it('tells an empty value from none', async () => {
        const [empty, none] = [asked.entryKey(), asked.entryKey()];
        await asked.plant(empty, '');
        expect(await asked.read(empty, none)).to.deep.equal([Buffer.alloc(0), null]);
      });

      it('gives bytes back as they were, all 256 of them, also a megabyte', async () => {
        const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
        const [short, long] = [asked.entryKey(), asked.entryKey()];
        const megabyte = Buffer.alloc(1 << 20, every);
        await asked.plant(short, every);
        await asked.plant(long, megabyte);
        const read = await asked.read(short, long);
        expect(read[0]!.equals(every)).to.equal(true);
        expect(read[1]!.equals(megabyte)).to.equal(true);
      });

      it('a value read stays as it was when the entry is replaced', async () => {
        const key = asked.entryKey();
        await asked.plant(key, 'old');
        const [bytes] = await asked.read(key);
        await asked.plant(key, 'new');
        expect(String(bytes)).to.equal('old');
      });
    });

    describe('mint', () => {
      it('gives each missing generation the token, and tells what stands', async () => {
        const [there, missing] = [await asked.minted(), asked.generationKey()];
        const token = generation(0, nonce());
        expect(await asked.mint([there.key, missing], token)).to.deep.equal([there.token, token]);
        expect(await asked.text(there.key)).to.equal(there.token);
        expect(await asked.text(missing)).to.equal(token);
      });

      it('of several at once the first token stands, and each gets that one', async () => {
        const key = asked.generationKey();
        const minted = await Promise.all(Array.from({ length: 20 }, () => asked.mint([key])));
        expect(new Set(minted.flat())).to.deep.equal(new Set([await asked.text(key)]));
      });

      it('mints the same key asked for twice once', async () => {
        const key = asked.generationKey();
        const token = generation(0, nonce());
        expect(await asked.mint([key, key], token)).to.deep.equal([token, token]);
      });

      it('after an eviction gives a token that was never there', async () => {
        const { key, token } = await asked.minted();
        await asked.evict(key);
        const [again] = await asked.mint([key]);
        expect(again).to.not.equal(token);
        expect(await asked.text(key)).to.equal(again);
      });

      it('lets a generation live for its TTL, and one that stands for what it had', async () => {
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

      it('leaves what is no generation as it is, and says foreign', async () => {
        for (const foreign of FOREIGN) {
          const key = asked.generationKey();
          await asked.plant(key, foreign);
          expect(await asked.mint([key]), foreign).to.deep.equal(['foreign']);
          expect(await asked.text(key)).to.equal(foreign);
        }
      });
    });

    describe('bump', () => {
      it('gives a generation a value never used before: one bump more, and this attempt’s nonce', async () => {
        const { key } = await asked.minted();
        for (const bumps of [1, 2, 3]) {
          const attempt = nonce();
          expect(await asked.bump([key], attempt)).to.deep.equal([generation(bumps, attempt)]);
          expect(await asked.text(key)).to.equal(generation(bumps, attempt));
        }
      });

      it('counts on beyond a hundred million bumps', async () => {
        const key = asked.generationKey();
        await asked.plant(key, generation(123_456_789_012, nonce()));
        const attempt = nonce();
        expect(await asked.bump([key], attempt)).to.deep.equal([generation(123_456_789_013, attempt)]);
        expect(await asked.text(key)).to.equal(generation(123_456_789_013, attempt));
      });

      it('what is missing stays missing: no key is left', async () => {
        const [missing, evicted] = [asked.generationKey(), await asked.minted()];
        await asked.evict(evicted.key);
        expect(await asked.bump([missing, evicted.key])).to.deep.equal(['missing', 'missing']);
        expect(await asked.read(missing, evicted.key)).to.deep.equal([null, null]);
      });

      it('of several at once none is lost', async () => {
        const { key } = await asked.minted();
        const bumped = (await Promise.all(Array.from({ length: 20 }, () => asked.bump([key])))).flat();
        expect(new Set(bumped)).to.have.property('size', 20);
        expect(bumpsOf(parseGeneration((await asked.text(key))!)!)).to.equal(20);
        expect(bumped).to.include(await asked.text(key));
      });

      it('answers for each of many keys in their order', async () => {
        const [one, none, two] = [await asked.minted(), asked.generationKey(), await asked.minted()];
        const strange = asked.generationKey();
        await asked.plant(strange, 'strange');
        await asked.bump([two.key]);
        const attempt = nonce();
        expect(await asked.bump([one.key, none, strange, two.key], attempt)).to.deep.equal([
          generation(1, attempt),
          'missing',
          'foreign',
          generation(2, attempt),
        ]);
      });

      it('renews a TTL that is shorter than asked for', async () => {
        const { key } = await asked.minted(10_000);
        await asked.bump([key], nonce(), 60_000);
        await elapse(50_000);
        expect(await asked.text(key)).to.not.equal(undefined);
        await elapse(11_000);
        expect(await asked.text(key)).to.equal(undefined);
      });

      it('never shortens a TTL', async () => {
        const { key } = await asked.minted(60_000);
        await asked.bump([key], nonce(), 10_000);
        await elapse(50_000);
        expect(await asked.text(key)).to.not.equal(undefined);
        await elapse(11_000);
        expect(await asked.text(key)).to.equal(undefined);
      });

      it('leaves what is no generation as it is, and says foreign', async () => {
        for (const foreign of FOREIGN) {
          const key = asked.generationKey();
          await asked.plant(key, foreign);
          expect(await asked.bump([key]), foreign).to.deep.equal(['foreign']);
          expect(await asked.text(key)).to.equal(foreign);
        }
      });
    });

    describe('fill', () => {
      const guarded = (key: GenerationKey, token: string, ttlMs = 60_000) => ({ key, token: token as never, ttlMs });
      const bytes = Buffer.from('value');

      it('stores an entry while all its guards stand', async () => {
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

      it('refuses an entry when any of its guards was bumped', async () => {
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
        const token = generation(0, nonce());
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

      it('refuses of a batch only what moved', async () => {
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

      it('refuses what an old vector guards after two bumps, too', async () => {
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

      it('renews a guard with less than half of its TTL left', async () => {
        const { key: guard, token } = await asked.minted(60_000);
        await elapse(31_000);
        await asked.fill([guarded(guard, token)], { key: asked.entryKey(), bytes, ttlMs: 1_000, guards: [0] });
        await elapse(59_000);
        expect(await asked.text(guard)).to.equal(token);
        await elapse(1_100);
        expect(await asked.text(guard)).to.equal(undefined);
      });

      it('leaves a guard with more than half of its TTL as it is', async () => {
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

      it('prolongs a guard that an entry with a longer TTL needs', async () => {
        const { key: guard, token } = await asked.minted(10_000);
        const key = asked.entryKey();
        await asked.fill([guarded(guard, token, 60_000)], { key, bytes, ttlMs: 30_000, guards: [0] });
        await elapse(29_000);
        expect(await asked.text(key)).to.equal('value');
        expect(await asked.text(guard)).to.equal(token);
      });

      it('does not renew a guard that moved', async () => {
        const { key: guard, token } = await asked.minted(10_000);
        await asked.bump([guard], nonce(), 10_000);
        await asked.fill([guarded(guard, token)], { key: asked.entryKey(), bytes, ttlMs: 1_000, guards: [0] });
        await elapse(10_100);
        expect(await asked.text(guard)).to.equal(undefined);
      });
    });

    describe('delete', () => {
      it('frees entries, and counts those that were there', async () => {
        const keys = [asked.entryKey(), asked.entryKey(), asked.entryKey()];
        await asked.plant(keys[0]!, 'one');
        await asked.plant(keys[2]!, 'three');
        expect(await asked.delete(...keys)).to.equal(2);
        expect(await asked.read(...keys)).to.deep.equal([null, null, null]);
        expect(await asked.delete(...keys)).to.equal(0);
      });
    });
  });
}

/** Values that look like a generation, more or less, and are none. */
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
];
