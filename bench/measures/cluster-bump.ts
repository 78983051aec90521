import { formatGeneration, nonce } from '../../lib/model/generation.js';
import { keyPrefix } from '../../lib/model/key.js';
import { redisStore } from '../../lib/store/redis/index.js';
import type { Measure } from '../bench.js';
import { clientOf, onCluster, onePerPartition, PARTITIONS } from '../cluster.js';
import { compare } from '../measure.js';
import { DETECTORS, scopeIds, threeLevels } from '../workload.js';

const CACHE = 'cluster-bump';

/** A bump of global on a Redis Cluster of three primaries: each partition has a generation of its own for it. */
export const clusterBump: Measure = ({ plan }) =>
  onCluster(async (cluster) => {
    const levels = threeLevels(redisStore(clientOf(cluster.servers)), CACHE);
    const tags = Array.from({ length: PARTITIONS }, (_, i) => /\{.*\}/.exec(keyPrefix(CACHE, i, PARTITIONS))![0]);
    const byNode = new Map<unknown, string[]>();
    for (const tag of tags) {
      const key = `plain:${tag}:g:`;
      const node = await cluster.servers.owner(key);
      byNode.set(node, [...(byNode.get(node) ?? []), key]);
    }
    const value = formatGeneration(1, nonce());
    const bump = () => levels.cache.bump();
    const find = async () => (await levels.workflows.lookup({ detector: 1, environment: 7 })).outcome;
    try {
      await levels.workflows.fetchMany(scopeIds(DETECTORS));
      await levels.cache.settled();
      const warm = await find();
      const commands = await onePerPartition(cluster, tags, bump);
      const bumped = await find();
      if (warm !== 'hit' || bumped !== 'miss') throw new Error(`A bump makes entries miss: ${warm}, ${bumped}.`);
      const comparison = await compare(
        { run: bump },
        {
          run: () =>
            Promise.all(
              [...byNode.values()].map((keys) => {
                const pipeline = cluster.plain.pipeline();
                for (const key of keys) pipeline.set(key, value);
                return pipeline.exec();
              }),
            ),
        },
        plan,
      );
      return [
        {
          name: 'cluster.bump.global',
          subject: `bump of global in ${PARTITIONS} partitions on three primaries`,
          baseline: `${PARTITIONS} SETs, in a pipeline for each primary`,
          ...comparison,
          commands,
          limit: { ratio: 1.5, commands: PARTITIONS },
        },
      ];
    } finally {
      await levels.close();
    }
  });
