/** All schedules of which `spec/races/quarantine.spec.ts` takes a part. */
import { expect } from 'chai';
import { memoryStore } from '../../../lib/index.js';
import { runSchedules } from '../../races/strict-commits.js';

describe('a strict commit, in every interleaving, on memoryStore', () => {
  const opened = () => {
    const store = memoryStore({ maxBytes: 1 << 30 });
    return () => store;
  };

  for (const warm of [true, false]) {
    const start = warm ? 'warm' : 'cold';

    it(`of two writers with two reads of one step, and a bump (${start})`, async () => {
      expect(await runSchedules(opened(), warm, { R: 2, V: 3, W: 3, B: 1 })).to.equal(5_040);
    });

    it(`of two writers with a read and a bump (${start})`, async () => {
      expect(await runSchedules(opened(), warm, { A: 3, V: 3, W: 3, B: 1 })).to.equal(16_800);
    });
  }
});
