import { setTimeout as sleep } from 'node:timers/promises';
import { redisStore } from '../../lib/store/redis/index.js';
import type { RedisNode } from '../../spec/support/redis-cluster.js';
import type { Measure } from '../bench.js';
import { clientOf, fillPlain, onCluster, tagOf } from '../cluster.js';
import { intervalOfMedian, median } from '../measure.js';
import { DETECTORS, ENVIRONMENT, scopeIds, threeLevels } from '../workload.js';

const CACHE = 'cluster-failover';
/** Both sides ask so often, whether the last answer has come or not. */
const ASK_EVERY_MS = 10;
const LIMIT_MS = 60_000;

/**
 * From a primary's kill to the first hit of an entry on it, by a cache without a bound; beside it, in the same failover,
 * the first answer that ioredis' own client has for a key in the same slot. Both include the election.
 */
export const clusterFailover: Measure = ({ quick }) =>
  onCluster(
    async (cluster) => {
      const plainKey = (detector: number) => `plain:${tagOf(CACHE, detector)}:detector:${detector}`;
      const detectors = Array.from({ length: DETECTORS }, (_, i) => i + 1);
      // The default deadline: what a read costs that gets no answer is a part of what is measured.
      const levels = threeLevels(redisStore(clientOf(cluster.servers)), CACHE, { readDeadlineMs: 100 });
      try {
        await fillPlain(cluster, detectors.map(plainKey));
        await levels.workflows.fetchMany(scopeIds(DETECTORS));
        await levels.cache.settled();
        const rounds: { ours: number; plain: number }[] = [];
        for (let round = 0; round < (quick ? 6 : 18); round++) {
          const detector = 1 + ((7 * round) % DETECTORS);
          const owner = await cluster.servers.owner(plainKey(detector));
          await owner.admin.wait(1, 5_000);
          rounds.push(
            await failover(owner, {
              ours: async () => {
                const { outcome } = await levels.workflows.lookup({ detector, environment: ENVIRONMENT });
                return outcome === 'hit';
              },
              plain: async () => (await cluster.plain.getBuffer(plainKey(detector))) !== null,
            }),
          );
          await owner.server.restart();
          await cluster.servers.formed();
        }
        const ratios = rounds.map(({ ours, plain }) => ours / plain);
        return [
          {
            name: 'cluster.failover',
            subject: 'from a primary’s kill to the first hit of an entry on it, without a bound',
            baseline: 'to ioredis’ first answer to a plain GET of a key in its slot',
            ratio: median(ratios),
            interval: intervalOfMedian(ratios),
            subjectMs: median(rounds.map(({ ours }) => ours)),
            baselineMs: median(rounds.map(({ plain }) => plain)),
            commands: null,
            note: `${rounds.length} failovers; cluster-node-timeout 1,500 ms`,
          },
        ];
      } finally {
        await levels.close();
      }
    },
    { replicas: 1 },
  );

/** Kills a node. Returns the time, in ms since then, at which each side has its first answer. */
async function failover<Name extends string>(
  { server }: RedisNode,
  sides: Readonly<Record<Name, () => Promise<boolean>>>,
): Promise<Record<Name, number>> {
  const killedAtMs = performance.now();
  await server.kill('SIGKILL');
  const waiting = (Object.entries(sides) as [Name, () => Promise<boolean>][]).map(async ([name, answers]) => {
    const answer = { atMs: Infinity };
    const ask = () =>
      answers().then(
        (answered) => {
          if (answered) answer.atMs = Math.min(answer.atMs, performance.now());
        },
        () => {},
      );
    while (answer.atMs === Infinity) {
      if (performance.now() > killedAtMs + LIMIT_MS) throw new Error(`${name} got no answer in ${LIMIT_MS} ms.`);
      void ask();
      await sleep(ASK_EVERY_MS);
    }
    return [name, answer.atMs - killedAtMs];
  });
  return Object.fromEntries(await Promise.all(waiting)) as Record<Name, number>;
}
