import { setTimeout as sleep } from 'node:timers/promises';
import { redisStore } from '../../lib/store/redis/index.js';
import type { RedisCluster, RedisNode } from '../../spec/support/redis-cluster.js';
import type { Measure } from '../bench.js';
import { clientOf, fillPlain, onCluster, PARTITIONS, tagOf } from '../cluster.js';
import { startDurable } from '../durable.js';
import { intervalOfMedian, median } from '../measure.js';
import { OtherRelay } from '../relay.js';
import type { Row } from '../row.js';
import { DETECTORS, ENVIRONMENT, scopeIds, threeLevels } from '../workload.js';

const CACHE = 'cluster-failover';
/** Both sides ask so often, whether the last answer has come or not. */
const ASK_EVERY_MS = 10;
const LIMIT_MS = 60_000;
const BOUNDED = 'cluster-failover-bounded';
const BOUND_MS = 5_000;

/**
 * From a primary's kill to the first hit of an entry on it, by a cache without a bound, and by one with a bound, for which
 * a relay in another process vouches in each partition; beside them, in the same failover, the first answer that ioredis'
 * own client has for a key of that primary. All include the election. With a bound, the relay's repair makes the entries
 * of the primary's partitions miss, so that hit follows a load.
 */
export const clusterFailover: Measure = ({ quick }) =>
  onCluster(
    async (cluster) => {
      const plainKey = (detector: number) => `plain:${tagOf(CACHE, detector)}:detector:${detector}`;
      const detectors = Array.from({ length: DETECTORS }, (_, i) => i + 1);
      // The default deadline: what a read costs that gets no answer is a part of what is measured.
      const store = () => redisStore(clientOf(cluster.servers));
      const levels = threeLevels(store(), CACHE, { readDeadlineMs: 100 });
      const bounded = threeLevels(store(), BOUNDED, { readDeadlineMs: 100, maxStalenessMs: BOUND_MS });
      const postgres = await startDurable();
      const relay = new OtherRelay({
        cache: BOUNDED,
        postgresUrl: postgres.url,
        redisUrl: cluster.servers.nodes[0]!.server.url,
        isCluster: true,
        maxStalenessMs: BOUND_MS,
      });
      const hits = async ({ workflows }: typeof levels, detector: number) =>
        (await workflows.lookup({ detector, environment: ENVIRONMENT })).outcome === 'hit';
      const hitsOrLoads = async (detector: number) => {
        if (await hits(bounded, detector)) return true;
        await bounded.workflows.fetch({ detector, environment: ENVIRONMENT });
        return false;
      };
      try {
        await fillPlain(cluster, detectors.map(plainKey));
        await levels.workflows.fetchMany(scopeIds(DETECTORS));
        await levels.cache.settled();
        await relay.start();
        const rounds: { ours: number; bounded: number; plain: number }[] = [];
        for (let round = 0; round < (quick ? 6 : 18); round++) {
          const detector = 1 + ((7 * round) % DETECTORS);
          const owner = await cluster.servers.owner(plainKey(detector));
          const neighbour = await neighbourOn(owner, cluster.servers);
          while (!(await hitsOrLoads(neighbour))) await sleep(ASK_EVERY_MS);
          await owner.admin.wait(1, 5_000);
          rounds.push(
            await failover(owner, {
              ours: () => hits(levels, detector),
              bounded: () => hitsOrLoads(neighbour),
              plain: async () => (await cluster.plain.getBuffer(plainKey(detector))) !== null,
            }),
          );
          await owner.server.restart();
          await cluster.servers.formed();
        }
        const row = (side: 'ours' | 'bounded'): Omit<Row, 'name' | 'subject'> => {
          const ratios = rounds.map((times) => times[side] / times.plain);
          return {
            baseline: 'to ioredis’ first answer to a plain GET of a key of that primary',
            ratio: median(ratios),
            interval: intervalOfMedian(ratios),
            subjectMs: median(rounds.map((times) => times[side])),
            baselineMs: median(rounds.map(({ plain }) => plain)),
            commands: null,
            note: `${rounds.length} failovers; cluster-node-timeout 1,500 ms`,
          };
        };
        const subject = 'from a primary’s kill to the first hit of an entry on it';
        return [
          { name: 'cluster.failover', subject: `${subject}, without a bound`, ...row('ours') },
          {
            name: 'cluster.failover.bounded',
            subject: `${subject}, within a bound of ${BOUND_MS} ms, by a relay of ${PARTITIONS} partitions`,
            ...row('bounded'),
          },
        ];
      } finally {
        await Promise.all([levels.close(), bounded.close()]);
        relay.end();
        await postgres.stop();
      }
    },
    { replicas: 1 },
  );

/** A detector of the cache with a bound, in a partition that this node owns. */
async function neighbourOn(owner: RedisNode, servers: RedisCluster): Promise<number> {
  for (let detector = 1; ; detector++) if ((await servers.owner(tagOf(BOUNDED, detector))) === owner) return detector;
}

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
