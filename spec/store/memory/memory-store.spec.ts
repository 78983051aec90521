import { expect } from 'chai';
import { type Clock, memoryStore } from '../../../lib/index.js';
import { AskedStore } from '../../ports/asked-store.js';
import { thrown } from '../../support/rejection.js';

describe('memoryStore', () => {
  it('evicts the least recently used keys when it is full, and never exceeds maxBytes', async () => {
    const asked = new AskedStore(memoryStore({ maxBytes: 10_000 }), 'memory');
    const [first, second] = [asked.entryKey(), asked.entryKey()];
    await asked.plant(first, Buffer.alloc(1_000));
    await asked.plant(second, Buffer.alloc(1_000));
    const further = Array.from({ length: 50 }, () => asked.entryKey());
    for (const key of further) {
      await asked.plant(key, Buffer.alloc(1_000));
      expect((await asked.read(first))[0]).to.not.equal(null);
    }
    expect((await asked.read(second))[0]).to.equal(null);
    const held = (await asked.read(first, ...further)).filter((bytes) => bytes !== null);
    expect(held.length).to.be.within(2, 10);
    expect((await asked.read(...further.slice(-held.length + 1))).every((bytes) => bytes !== null)).to.equal(true);
  });

  it('refuses a value above maxBytes, and evicts nothing for it', async () => {
    const asked = new AskedStore(memoryStore({ maxBytes: 10_000 }), 'memory');
    const [small, large] = [asked.entryKey(), asked.entryKey()];
    await asked.plant(small, 'small');
    await asked.plant(large, Buffer.alloc(20_000));
    expect(await asked.text(small)).to.equal('small');
    expect(await asked.text(large)).to.equal(undefined);
  });

  it('mints an evicted generation anew, with another token', async () => {
    const asked = new AskedStore(memoryStore({ maxBytes: 2_000 }), 'memory');
    const { key, token } = await asked.minted();
    for (let i = 0; i < 20; i++) await asked.plant(asked.entryKey(), Buffer.alloc(500));
    expect(await asked.text(key)).to.equal(undefined);
    expect(await asked.bump([key])).to.deep.equal(['missing']);
    expect(await asked.mint([key])).to.not.deep.equal([token]);
  });

  it('lets entries expire whatever instant its clock starts at', async () => {
    for (const startMs of [0, 0.5, 1, 1e12]) {
      let nowMs = startMs;
      const clock: Clock = { nowMs: () => nowMs };
      const asked = new AskedStore(memoryStore({ clock }), 'memory');
      const key = asked.entryKey();
      await asked.plant(key, 'value', 1_000);
      nowMs += 900;
      expect(await asked.text(key), `from ${startMs}`).to.equal('value');
      nowMs += 200;
      expect(await asked.text(key), `from ${startMs}`).to.equal(undefined);
    }
  });

  it('shares nothing with another memoryStore', async () => {
    const [one, other] = [memoryStore(), memoryStore()].map((store) => new AskedStore(store, 'memory'));
    const { key } = await one!.minted();
    expect(await other!.text(key)).to.equal(undefined);
  });

  it('rejects a maxBytes that is no integer from 1', () => {
    for (const [maxBytes, shown] of [
      [0, '0'],
      [-1, '-1'],
      [1.5, '1.5'],
      [Infinity, 'Infinity'],
      ['64MiB' as never, "'64MiB'"],
    ] as const) {
      expect(thrown(() => memoryStore({ maxBytes }))).to.include({
        name: 'ConfigurationError',
        message: `maxBytes must be an integer from 1, but got ${shown} (memoryStore). Leave it out for 64 MiB.`,
      });
    }
  });
});
