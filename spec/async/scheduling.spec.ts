import { expect } from 'chai';
import sinon from 'sinon';

import { Deadline, DeadlineError } from '../../lib/async/deadline.js';
import { GenerationalCache, integer, memoryStore } from '../../lib/index.js';

describe('under fake timers that stand still', () => {
  let clock: sinon.SinonFakeTimers;

  beforeEach(() => {
    clock = sinon.useFakeTimers();
  });

  afterEach(() => clock.restore());

  it('reads, fills, bumps, settles and closes', async () => {
    const cache = new GenerationalCache({ name: 'fake', store: memoryStore() });
    let loads = 0;
    const visits = cache.namespace('customer', integer()).one('visits', {
      load: async (ids) => ids.map(({ customer }) => ({ customer, nth: ++loads })),
      by: ({ customer }) => ({ customer }),
      value: ({ nth }) => new Map([[nth, new Date(nth)]]),
    });
    const first = await visits.fetch({ customer: 42 });
    await cache.settled();
    expect(await visits.fetch({ customer: 42 })).to.deep.equal(first);
    await cache.bump();
    await visits.fetch({ customer: 42 });
    expect(loads).to.equal(2);
    await cache.close();
  });

  it('lets a deadline pass in real time', async () => {
    const error: unknown = await new Deadline('read', 20)
      .race(new Promise(() => {}), (cause) => cause)
      .catch((cause: unknown) => cause);
    expect(error).to.be.instanceOf(DeadlineError);
  });
});
