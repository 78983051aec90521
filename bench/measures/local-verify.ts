import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { compare } from '../measure.js';
import { plainValues } from '../plain.js';
import { DETECTORS, notHits, onlyHits, scopeIds, threeLevels } from '../workload.js';

const LOCAL = { local: { mode: 'verify', maxEntries: 10_000 } } as const;
/** Workflows of an entry: five are about 600 bytes as JSON, 150 about 20 kB. */
const SIZES = [
  { name: 'local.verify', rows: 5, ratio: 1 },
  { name: 'local.verify.20k', rows: 150, ratio: 0.6 },
];

/** A hit whose value the local tier has: the store is asked for three generations. */
export const localVerify: Measure = async ({ redis, redisUrl, plan }) => {
  const measured = [];
  for (const { name, rows, ratio } of SIZES) {
    const plain = await plainValues(redis, name, DETECTORS, rows);
    const levels = threeLevels(redisUrl, name, LOCAL, rows);
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
      const { statistics } = levels.cache;
      const elsewhere = statistics.total('hits') - statistics.total('local_hits');
      if (elsewhere > 0) throw new Error(`A hit of the local tier is measured: ${elsewhere} hits were none.`);
      measured.push({
        name,
        subject: `fetch with local: { mode: 'verify' }, ${rows} rows`,
        baseline: 'plain GET + decode',
        ...comparison,
        commands,
        limit: { ratio, commands: 1 },
      });
    } finally {
      await levels.close();
    }
  }
  return measured;
};
