/**
 * Outages of Redis, on every step of the ladder. The steps of one outage share its Redis and run beside each other, each
 * with its own 20 readers, writer, relay and tables; the observer checks what the step promises, and no more.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis } from '../support/redis.js';
import { Installation } from './installation.js';
import { LADDER } from './ladder.js';
import { watchResources } from './leftovers.js';
import { OUTAGES } from './outages.js';

/** How long an outage lasts, and at most on a busy machine, until each installation has read this often. */
const FAULT_MS = 1_000;
const FAULT_MAX_MS = 20_000;
const READS_MIN = 100;

for (const [what, outage] of Object.entries(OUTAGES)) {
  describe(`Redis ${what}`, () => {
    const outcomes = new Map<string, Promise<void>>();
    let refusals = 0;
    let leavesNothing: Promise<void>;

    before(async function () {
      this.timeout(180_000);
      const { refuses, args = [], isOver = () => true } = outage;
      const server = await privateRedis({ args });
      const proxy = await startProxy(server.port);
      const target = { server, proxy, admin: lendRedis({ url: server.url }) };
      await target.admin.ping();
      const nothingLeft = watchResources();
      const installations = await Promise.all(
        Object.entries(LADDER).map(
          async ([name, step]) => [name, await Installation.open({ step, url: proxy.url, refuses })] as const,
        ),
      );
      await Promise.all(installations.map(([, installation]) => installation.start()));

      const before = installations.map(([, { progress }]) => progress.reads);
      const reads = () => installations.map(([, { progress }], i) => progress.reads - before[i]!);
      const refused = () => installations.reduce((sum, [, { progress }]) => sum + progress.refusals, 0);
      const isFelt = () => Math.min(...reads()) >= READS_MIN && (refuses === 'no writes' || refused() > 0);
      await outage.make(target);
      const madeMs = performance.now();
      for (let lastedMs = 0; lastedMs < FAULT_MS || (!(isFelt() && isOver()) && lastedMs < FAULT_MAX_MS);) {
        await (outage.during?.(target) ?? sleep(50));
        lastedMs = performance.now() - madeMs;
      }
      const during = reads();
      refusals = refused();
      await outage.end?.(target);

      const recovering = installations.map(async ([name, installation], i) => {
        const outcome = (async () => {
          await installation.recover();
          installation.judge();
          expect(during[i], 'reads during the outage').to.be.at.least(READS_MIN);
        })();
        outcomes.set(name, outcome);
        await outcome.catch(() => {});
      });
      await Promise.all(recovering);
      leavesNothing = Promise.all(installations.map(([, installation]) => installation.close())).then(nothingLeft);
      await leavesNothing.catch(() => {});
    });

    for (const name of Object.keys(LADDER)) {
      it(`${name}: no read fails, hangs or is older than promised, and hits return`, () => outcomes.get(name));
    }

    it(`refuses ${outage.refuses}`, () => {
      if (outage.refuses === 'no writes') expect(refusals).to.equal(0);
      else expect(refusals).to.be.above(0);
    });

    it('leaves no timer, connection or listener behind when the caches are closed', () => leavesNothing);
  });
}
