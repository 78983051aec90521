import { redisStore } from '../../lib/store/redis/index.js';
import type { Measure } from '../bench.js';
import { clientOf, fillPlain, onCluster, onePerPartition, tagOf } from '../cluster.js';
import { compare } from '../measure.js';
import { seedWorkflows, workflowEngine } from '../workflow-engine.js';
import { decodePlain, DETECTORS, ENVIRONMENT, notHits, onlyHits } from '../workload.js';

const CACHE = 'cluster-hit-batch';

/** `hit.batch100` on a Redis Cluster of three primaries: beside it, one MGET for each slot that the entries lie in. */
export const clusterHitBatch: Measure = async ({ db, plan }) => {
  await seedWorkflows(db, DETECTORS);
  return onCluster(async (cluster) => {
    const detectors = Array.from({ length: DETECTORS }, (_, index) => index + 1);
    const groups = new Map<string, string[]>();
    for (const detector of detectors) {
      const tag = tagOf(CACHE, detector);
      const own = [ENVIRONMENT, 'null'].map((environment) => `plain:${tag}:${detector}:${environment}`);
      groups.set(tag, [...(groups.get(tag) ?? []), ...own]);
    }
    const keys = [...groups.values()];
    await fillPlain(cluster, keys.flat());
    const engine = workflowEngine(redisStore(clientOf(cluster.servers)), db, CACHE);
    const read = () => engine.workflows.getWorkflowsByDetectors(detectors, ENVIRONMENT);
    try {
      const lists = await read();
      if (lists.some((list) => list.length !== 10))
        throw new Error('Each detector has ten workflows: the seed is off.');
      await engine.cache.settled();

      const start = notHits(engine.cache);
      const commands = await onePerPartition(cluster, [...groups.keys()], read);
      const comparison = await compare(
        { run: read },
        {
          run: () =>
            Promise.all(keys.map(async (own) => (await cluster.plain.mgetBuffer(own)).map((one) => decodePlain(one)))),
        },
        plan,
      );
      onlyHits(engine.cache, start);
      return [
        {
          name: `cluster.hit.batch${DETECTORS}`,
          subject: `getWorkflowsByDetectors of ${DETECTORS} detectors, ${2 * DETECTORS} entries, on three primaries`,
          baseline: `plain MGETs of ${2 * DETECTORS}, one for each of ${groups.size} slots, + decode`,
          ...comparison,
          commands,
          limit: { ratio: 1.5, commands: groups.size },
        },
      ];
    } finally {
      await engine.close();
    }
  });
};
