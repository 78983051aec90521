import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { compare } from '../measure.js';
import { workflowRows } from '../../lib/workflow-engine/workflow.js';
import { seedWorkflows, workflowEngine } from '../workflow-engine.js';
import { DETECTORS, ENVIRONMENT } from '../workload.js';

/** A cold `getWorkflowsByDetectors`, to the end of its fill: no generation is there, no entry, no remembered scope. */
export const missBatch: Measure = async ({ redisUrl, db, quick }) => {
  await seedWorkflows(db, DETECTORS);
  const detectors = Array.from({ length: DETECTORS }, (_, index) => index + 1);
  const pairs = detectors.flatMap((detector) => [
    { detector, environment: ENVIRONMENT },
    { detector, environment: null },
  ]);
  let queries = 0;
  // Of loaders: each new cache also publishes its namespaces, once.
  db.on('query', ({ sql }: { sql: string }) => sql.includes('gencache_declaration') || queries++);
  let engine = workflowEngine(redisUrl, db, 'miss-batch');
  let colds = 0;
  const cool = async () => {
    await engine.close();
    engine = workflowEngine(redisUrl, db, `miss-batch-${colds++}`);
    // Connects, so that what is timed is the batch. The bump of a scope that nobody cached writes nothing.
    await engine.workflows.bumpEverything();
  };
  const read = async () => {
    await engine.workflows.getWorkflowsByDetectors(detectors, ENVIRONMENT);
    await engine.cache.settled();
  };
  try {
    await cool();
    queries = 0;
    const commands = await countCommands(redisUrl, read);
    const counted = queries;
    const { ratio, subjectMs, baselineMs } = await compare(
      { beforeEach: cool, run: read },
      { beforeEach: () => undefined, run: () => workflowRows(db, pairs) },
      { pairs: quick ? 30 : 100, operations: 1 },
    );
    return [
      {
        name: `miss.batch${DETECTORS}`,
        subject: `cold getWorkflowsByDetectors of ${DETECTORS} detectors, filled`,
        baseline: 'its one query by Knex, uncached; the ratio is of queries',
        ratio: counted,
        interval: [counted, counted],
        subjectMs,
        baselineMs,
        commands,
        unit: 'queries',
        limit: { ratio: 1, commands: 4 },
        note: `${ratio.toFixed(2)} times as long, until it is stored`,
      },
    ];
  } finally {
    await engine.close();
  }
};
