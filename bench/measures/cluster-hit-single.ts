import { redisStore } from '../../lib/store/redis/index.js';
import type { Measure } from '../bench.js';
import { clientOf, fillPlain, onCluster, onePerPartition, tagOf } from '../cluster.js';
import { compare } from '../measure.js';
import { decodePlain, DETECTORS, notHits, onlyHits, scopeIds, threeLevels } from '../workload.js';

const CACHE = 'cluster-hit-single';

/** `hit.single` on a Redis Cluster of three primaries. */
export const clusterHitSingle: Measure = ({ plan }) =>
  onCluster(async (cluster) => {
    const keys = Array.from({ length: DETECTORS }, (_, i) => `plain:${tagOf(CACHE, i + 1)}:detector:${i + 1}`);
    await fillPlain(cluster, keys);
    const levels = threeLevels(redisStore(clientOf(cluster.servers)), CACHE);
    const ids = scopeIds(DETECTORS);
    try {
      await levels.workflows.fetchMany(ids);
      await levels.cache.settled();

      const start = notHits(levels.cache);
      const commands = await onePerPartition(cluster, [tagOf(CACHE, 1)], () => levels.workflows.fetch(ids[0]!));
      const comparison = await compare(
        { run: (index) => levels.workflows.fetch(ids[index % DETECTORS]!) },
        { run: async (index) => decodePlain(await cluster.plain.getBuffer(keys[index % DETECTORS]!)) },
        plan,
      );
      onlyHits(levels.cache, start);
      return [
        {
          name: 'cluster.hit.single',
          subject: 'fetch of global > detector > environment on three primaries',
          baseline: 'plain GET + decode',
          ...comparison,
          commands,
          limit: { ratio: 1.25, commands: 1 },
        },
      ];
    } finally {
      await levels.close();
    }
  });
