import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { compare } from '../measure.js';
import { plainValues } from '../plain.js';
import { bentocache } from '../rivals/bentocache.js';
import { cacheable } from '../rivals/cacheable.js';
import { layeredLoader } from '../rivals/layered-loader.js';
import type { Row } from '../row.js';
import { DETECTORS } from '../workload.js';

/** The hit of `hit.single` in other caches that invalidate groups or tags, each with its own encoding. */
export const rivalHit: Measure = async ({ redis, redisUrl, plan }) => {
  const plain = await plainValues(redis, 'rival-hit', DETECTORS);
  const rows: Row[] = [];
  for (const start of [layeredLoader, bentocache, cacheable]) {
    const rival = await start(redisUrl, DETECTORS);
    try {
      const commands = await countCommands(redisUrl, () => rival.get(0));
      const comparison = await compare({ run: (index) => rival.get(index % DETECTORS) }, { run: plain.get }, plan);
      rows.push({
        name: `rival.${rival.name}.hit`,
        subject: rival.subject,
        baseline: 'plain GET + decode',
        ...comparison,
        commands,
      });
    } finally {
      await rival.close();
    }
  }
  return rows;
};
