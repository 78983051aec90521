import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { compare } from '../measure.js';
import { plainValues } from '../plain.js';
import { connect, DETECTORS, notHits, onlyHits, scopeIds, threeLevels } from '../workload.js';

/** Hits of a hundred scopes, asked for one by one in one turn of the event loop. */
export const hitConcurrent: Measure = async ({ redis, redisUrl, plan }) => {
  const levels = threeLevels(redisUrl, 'hit-concurrent');
  const pipelining = await connect(redisUrl, { enableAutoPipelining: true });
  const ids = scopeIds(DETECTORS);
  const fetchAtOnce = () => Promise.all(ids.map((id) => levels.workflows.fetch(id)));
  try {
    await fetchAtOnce();
    await levels.cache.settled();

    const start = notHits(levels.cache);
    const commands = await countCommands(redisUrl, fetchAtOnce);
    const subject = `${DETECTORS} fetches in one turn`;
    const beside = async (client: typeof redis) => {
      const { getAtOnce } = await plainValues(client, 'hit-concurrent', DETECTORS);
      return compare({ run: fetchAtOnce }, { run: getAtOnce }, plan);
    };
    const rows = [
      {
        name: `hit.concurrent${DETECTORS}`,
        subject,
        baseline: `${DETECTORS} plain GETs + decode in one turn`,
        ...(await beside(redis)),
        commands,
        limit: { ratio: 1, commands: 1 },
      },
      {
        name: `hit.concurrent${DETECTORS}.autopipelining`,
        subject,
        baseline: 'the same GETs, ioredis pipelining them by itself',
        ...(await beside(pipelining)),
        commands,
      },
    ];
    onlyHits(levels.cache, start);
    return rows;
  } finally {
    pipelining.disconnect();
    await levels.close();
  }
};
