import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { compare } from '../measure.js';
import { plainValues } from '../plain.js';
import { seedWorkflows, workflowEngine } from '../workflow-engine.js';
import { DETECTORS, ENVIRONMENT, notHits, onlyHits } from '../workload.js';

/** A warm `getWorkflowsByDetectors`: two entries for each detector. */
export const hitBatch: Measure = async ({ redis, redisUrl, db, plan }) => {
  await seedWorkflows(db, DETECTORS);
  const plain = await plainValues(redis, 'hit-batch', 2 * DETECTORS);
  const engine = workflowEngine(redisUrl, db, 'hit-batch');
  const detectors = Array.from({ length: DETECTORS }, (_, index) => index + 1);
  const read = () => engine.workflows.getWorkflowsByDetectors(detectors, ENVIRONMENT);
  try {
    const lists = await read();
    if (lists.some((list) => list.length !== 10)) throw new Error('Each detector has ten workflows: the seed is off.');
    await engine.cache.settled();

    const start = notHits(engine.cache);
    const commands = await countCommands(redisUrl, read);
    const comparison = await compare({ run: read }, { run: plain.getMany }, plan);
    onlyHits(engine.cache, start);
    return [
      {
        name: `hit.batch${DETECTORS}`,
        subject: `getWorkflowsByDetectors of ${DETECTORS} detectors, ${2 * DETECTORS} entries`,
        baseline: `plain MGET of ${2 * DETECTORS} + decode`,
        ...comparison,
        commands,
        limit: { ratio: 1.5, commands: 1 },
      },
    ];
  } finally {
    await engine.close();
  }
};
