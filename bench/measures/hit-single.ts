import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { compare } from '../measure.js';
import { plainValues } from '../plain.js';
import { DETECTORS, notHits, onlyHits, scopeIds, threeLevels } from '../workload.js';

/** A hit three levels deep, all generations remembered. */
export const hitSingle: Measure = async ({ redis, redisUrl, plan }) => {
  const plain = await plainValues(redis, 'hit-single', DETECTORS);
  const levels = threeLevels(redisUrl, 'hit-single');
  const ids = scopeIds(DETECTORS);
  try {
    await levels.workflows.fetchMany(ids);
    await levels.cache.settled();

    const start = notHits(levels.cache);
    const commands = await countCommands(redisUrl, () => levels.workflows.fetch(ids[0]!));
    const comparison = await compare(
      { run: (index) => levels.workflows.fetch(ids[index % DETECTORS]!) },
      { run: plain.get },
      plan,
    );
    onlyHits(levels.cache, start);
    return [
      {
        name: 'hit.single',
        subject: 'fetch of global > detector > environment',
        baseline: 'plain GET + decode',
        ...comparison,
        commands,
        limit: { ratio: 1.25, commands: 1 },
      },
    ];
  } finally {
    await levels.close();
  }
};
