import { expect } from 'chai';
import { eventually } from '../../../support/deferred.js';
import { privateRedis, redisUrl, uniqueName } from '../../../support/redis.js';
import { lendOutbox, lendRelay } from '../../../support/relay.js';

describe('a relay', () => {
  it('says so when another relay uses another Redis, and takes turns of five seconds with it', async () => {
    const db = await lendOutbox({ pool: { max: 20 } });
    const cache = uniqueName();
    const other = await privateRedis();
    const repairs: { of: string; atMs: number }[] = [];
    const logs: Record<string, string[]> = {};
    for (const [of, url] of [
      ['one', redisUrl()],
      ['two', other.url],
    ] as const) {
      const lines: string[] = (logs[of] = []);
      const note = (line: string) => lines.push(line);
      const relay = lendRelay({ db, cache, url, log: { debug() {}, info: note, warn: note, error: note } });
      relay.on('repair', () => repairs.push({ of, atMs: performance.now() }));
      if (of === 'one') await eventually(() => expect(relay.status.trusted).to.equal(true));
    }
    await eventually(() => expect(repairs).to.have.length(4), { withinMs: 50_000 });
    expect(repairs.map(({ of }) => of)).to.deep.equal(['one', 'two', 'one', 'two']);
    const turnsMs = repairs.slice(1).map(({ atMs }, i) => atMs - repairs[i]!.atMs);
    for (const turnMs of turnsMs) expect(turnMs).to.be.at.least(4_900);
    for (const of of ['one', 'two']) {
      const said = logs[of]!.filter((line) =>
        line.startsWith(`${cache}: another relay of this cache uses another Redis. They take turns`),
      );
      expect(said).to.have.length(1);
    }
  });
});
