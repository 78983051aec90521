import { expect } from 'chai';
import { GenerationalCache, integer, memoryStore, type Store, text } from '../../lib/index.js';
import { bypassStore } from '../../lib/testing/index.js';
import { deferred, eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { rejection } from '../support/rejection.js';
import { uniqueName } from '../support/redis.js';

describe('an entry of a value', () => {
  function lendRates(options: { loadsMax?: number; store?: Store } = {}) {
    const cache = new GenerationalCache({ name: uniqueName(), store: memoryStore(), ...options });
    lend({ what: 'the cache', close: () => cache.close() });
    const rates = new Map<string, { cents: number } | undefined | null>([
      ['EUR', { cents: 100 }],
      ['USD', { cents: 92 }],
      ['XXX', undefined],
      ['NIL', null],
    ]);
    const asked: string[] = [];
    let running = 0;
    let runningMax = 0;
    let gate: Promise<void> = Promise.resolve();
    const currencies = cache.namespace('currency', text());
    const rate = currencies.value('rate', {
      key: { day: integer() },
      async load({ currency, day }, { signal }) {
        expect(signal.aborted).to.equal(false);
        asked.push(`${currency} ${day}`);
        runningMax = Math.max(runningMax, ++running);
        await gate.finally(() => running--);
        if (!rates.has(currency)) throw new Error(`no ${currency}`);
        return rates.get(currency);
      },
    });
    const hold = () => {
      const held = deferred();
      gate = held.promise;
      return held.resolve;
    };
    return { cache, currencies, rate, rates, asked, hold, runningMax: () => runningMax };
  }

  it('is loaded with one set of ids, cached, and invalidated by a bump', async () => {
    const { cache, currencies, rate, rates, asked } = lendRates();
    const id = { currency: 'EUR', day: 1 };
    for (let i = 0; i < 2; i++) {
      expect(await rate.fetch(id)).to.deep.equal({ cents: 100 });
      await cache.settled();
    }
    expect(asked).to.deep.equal(['EUR 1']);
    rates.set('EUR', { cents: 101 });
    await currencies.bump({ currency: 'EUR' });
    expect(await rate.fetch(id)).to.deep.equal({ cents: 101 });
    expect(cache.statistics.total('hits')).to.equal(1);
    expect(cache.statistics.total('queries_run')).to.equal(2);
  });

  it('caches undefined as absent, and null as a value', async () => {
    const { cache, rate, asked } = lendRates();
    for (let i = 0; i < 2; i++) {
      expect(
        await rate.fetchMany([
          { currency: 'XXX', day: 1 },
          { currency: 'NIL', day: 1 },
        ]),
      ).to.deep.equal([undefined, null]);
      await cache.settled();
    }
    expect(asked).to.have.length(2);
    expect((await rate.lookup({ currency: 'XXX', day: 1 })).outcome).to.equal('absent');
    expect((await rate.lookup({ currency: 'NIL', day: 1 })).outcome).to.equal('hit');
  });

  it('is loaded beside others of its call, under the cap, in the order of the ids', async () => {
    const { rate, asked, hold, runningMax } = lendRates({ loadsMax: 3 });
    const release = hold();
    const days = Array.from({ length: 10 }, (_, day) => ({ currency: 'EUR', day }));
    const fetched = rate.fetchMany(days);
    await eventually(() => expect(asked).to.have.length(3));
    release();
    expect(await fetched).to.deep.equal(days.map(() => ({ cents: 100 })));
    expect(runningMax()).to.equal(3);
    expect(asked).to.deep.equal(days.map(({ day }) => `EUR ${day}`));
  });

  it('is loaded once for concurrent callers, each of which gets a value of its own', async () => {
    for (const store of [memoryStore(), bypassStore()]) {
      const { rate, asked } = lendRates({ store });
      const id = { currency: 'EUR', day: 1 };
      const [one, other] = await Promise.all([rate.fetch(id), rate.fetch(id)]);
      (one as { cents: number }).cents = 0;
      expect(other).to.deep.equal({ cents: 100 });
      expect(asked).to.deep.equal(['EUR 1']);
    }
  });

  it('rejects its own callers with the loader’s error, unwrapped and uncached, and no others', async () => {
    const { rate, rates, asked } = lendRates();
    const [good, bad] = [rate.fetch({ currency: 'EUR', day: 1 }), rejection(rate.fetch({ currency: 'ZZZ', day: 1 }))];
    expect(await good).to.deep.equal({ cents: 100 });
    expect((await bad).message).to.equal('no ZZZ');
    rates.set('ZZZ', { cents: 7 });
    expect(await rate.fetch({ currency: 'ZZZ', day: 1 })).to.deep.equal({ cents: 7 });
    expect(asked).to.have.length(3);
  });

  it('is stored by `fill`, undefined as absent', async () => {
    const { rate } = lendRates();
    for (const value of [{ cents: 1 }, undefined]) {
      const looked = await rate.lookup({ currency: value ? 'EUR' : 'USD', day: 2 });
      if (looked.outcome !== 'miss') throw new Error('a miss');
      expect(await rate.fill(looked.vector, value)).to.equal('filled');
    }
    expect(await rate.fetch({ currency: 'EUR', day: 2 })).to.deep.equal({ cents: 1 });
    expect(await rate.fetch({ currency: 'USD', day: 2 })).to.equal(undefined);
  });

  it('of the whole cache needs no ids, and may come from a plain function', async () => {
    const { cache } = lendRates();
    let version = 1;
    const settings = cache.value('settings', { load: () => ({ version }) });
    expect(await settings.fetch({})).to.deep.equal({ version: 1 });
    await cache.settled();
    version = 2;
    expect(await settings.fetch({})).to.deep.equal({ version: 1 });
    await cache.bump();
    expect(await settings.fetch({})).to.deep.equal({ version: 2 });
  });

  it('refuses a loader that is no function', () => {
    const { currencies } = lendRates();
    expect(() => currencies.value('broken', { load: 7 as never })).to.throw(
      '`load` must be a function, but got 7 (entry "broken"). Pass a function that reads the rows, or the value,',
    );
  });
});
