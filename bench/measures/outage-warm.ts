import { startRedis } from '../../spec/support/servers/redis-server.js';
import type { Measure } from '../bench.js';
import { compare } from '../measure.js';
import type { Row } from '../row.js';
import { DETECTORS, notHits, onlyHits, scopeIds, threeLevels } from '../workload.js';
import { FAULTS } from './outage.js';

/** Those of a cache by default, since they are what an outage costs, and a grace that outlives the measure. */
const SETTINGS = {
  readDeadlineMs: 100,
  local: { mode: 'verify', maxEntries: 10_000, staleOnOutageMs: 3_600_000 },
} as const;

/** A warm read that the local tier answers while Redis is away, and the same read with Redis. */
export const outageWarm: Measure = async ({ redisUrl, plan }) => {
  const rows: Row[] = [];
  for (const [fault, make] of Object.entries(FAULTS)) {
    const server = await startRedis();
    const [away, there] = [server.url, redisUrl].map((url) => threeLevels(url, `outage.warm.${fault}`, SETTINGS));
    const ids = scopeIds(DETECTORS);
    try {
      for (const { workflows, cache } of [away!, there!]) {
        await workflows.fetchMany(ids);
        await cache.settled();
      }
      const total = (counter: 'queries_run' | 'bypasses') => away!.cache.statistics.total(counter);
      const [loads, bypasses] = [total('queries_run'), total('bypasses')];
      await make(server);
      const start = notHits(there!.cache);
      const comparison = await compare(
        { run: (index) => away!.workflows.fetch(ids[index % DETECTORS]!) },
        { run: (index) => there!.workflows.fetch(ids[index % DETECTORS]!) },
        plan,
      );
      onlyHits(there!.cache, start);
      if (total('queries_run') > loads || total('bypasses') > bypasses) {
        throw new Error('The local tier answers all reads of an outage, but some went to the source.');
      }
      rows.push({
        name: `outage.warm.${fault}`,
        subject: `warm fetch while Redis is ${fault}, with staleOnOutageMs`,
        baseline: "the same with Redis, local: { mode: 'verify' }",
        ...comparison,
        commands: null,
        limit: { ratio: 1.5 },
      });
    } finally {
      server.resume();
      await away!.close();
      await there!.close();
      await server.stop();
    }
  }
  return rows;
};
