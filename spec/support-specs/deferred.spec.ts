import { expect } from 'chai';
import { deferred, eventually } from '../support/deferred.js';

describe('deferred', () => {
  it('settles when the spec says', async () => {
    const step = deferred<number>();
    step.resolve(1);
    expect(await step.promise).to.equal(1);
  });
});

describe('eventually', () => {
  it('returns what the assertion returns once it holds', async () => {
    let polls = 0;
    const value = await eventually(() => {
      expect(++polls).to.equal(3);
      return 'done';
    });
    expect(value).to.equal('done');
  });

  it("throws the assertion's last error when the time is over", async () => {
    let polls = 0;
    const failing = eventually(() => Promise.reject(new Error(`poll ${++polls}`)), { withinMs: 30 });
    const error = (await failing.catch((reason: unknown) => reason)) as Error;
    expect(error.message).to.equal(`poll ${polls}`);
    expect(polls).to.be.greaterThan(1);
  });
});
