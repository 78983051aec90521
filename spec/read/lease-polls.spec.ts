import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { LeaseWaiters } from '../../lib/read/lease-waiters.js';
import type { BatchSlot } from '../../lib/read/batch-slot.js';

describe('the polls of a process that waits for others', () => {
  it('for many entries are rarer on a store that is slow, which many processes may ask', async () => {
    let looks = 0;
    const waiters = new LeaseWaiters({
      async look(slots) {
        looks++;
        await sleep(20);
        return slots.map(() => 'held');
      },
      ended: () => {},
    });
    waiters.add(
      Array.from({ length: 200 }, () => ({ isWanted: true, waitsUntilMs: Infinity }) as unknown as BatchSlot),
    );
    await sleep(1_500);
    waiters.close();
    // One look takes 20 ms: the store gets a tenth of the time for it, and not half.
    expect(looks).to.be.within(3, 20);
  });
});
