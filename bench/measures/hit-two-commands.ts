import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { compare } from '../measure.js';
import { plainValues } from '../plain.js';
import { notHits, onlyHits, scopeIds, type ThreeLevels, threeLevels } from '../workload.js';

/** Operations in a block: each reads another scope, since a second read of one would need one command. */
const OPERATIONS = 100;

/** The other scope that a fresh process reads: one miss. */
const OTHER = 1;

/** The hits that need two commands: the first of a scope after a bump, and the first of a scope in a process. */
export const hitTwoCommands: Measure = async ({ redis, redisUrl, plan }) => {
  const plain = await plainValues(redis, 'hit-two', OPERATIONS);
  const baseline = { run: plain.get };
  const ids = scopeIds(OPERATIONS);
  const writer = threeLevels(redisUrl, 'hit-two');
  const reader = threeLevels(redisUrl, 'hit-two');
  let fresh: ThreeLevels | undefined;
  const refill = async () => {
    await writer.workflows.fetchMany(ids);
    await writer.cache.settled();
  };
  /** Another process bumps every scope and fills it again: only this one still remembers the old generations. */
  const bumpElsewhere = async () => {
    await writer.environments.bumpMany(ids);
    await refill();
  };
  /** A process that has its connection and has read one other scope, not these. */
  const start = async () => {
    if (fresh) onlyHits(fresh.cache, OTHER);
    await fresh?.close();
    fresh = threeLevels(redisUrl, 'hit-two');
    await fresh.workflows.lookup({ detector: 0, environment: 0 });
  };
  try {
    await refill();
    await reader.workflows.fetchMany(ids);

    const before = notHits(reader.cache);
    await bumpElsewhere();
    const afterBumpCommands = await countCommands(redisUrl, () => reader.workflows.fetch(ids[0]!));
    const afterBump = await compare(
      { beforeBlock: bumpElsewhere, run: (index) => reader.workflows.fetch(ids[index]!) },
      baseline,
      { ...plan, operations: OPERATIONS },
    );
    onlyHits(reader.cache, before);

    await start();
    const freshCommands = await countCommands(redisUrl, () => fresh!.workflows.fetch(ids[0]!));
    const freshProcess = await compare(
      { beforeBlock: start, run: (index) => fresh!.workflows.fetch(ids[index]!) },
      baseline,
      { ...plan, operations: OPERATIONS },
    );
    onlyHits(fresh!.cache, OTHER);
    const limit = { commands: 2 };
    return [
      {
        name: 'hit.afterBump',
        subject: 'first fetch after another process bumped and filled',
        baseline: 'plain GET + decode',
        ...afterBump,
        commands: afterBumpCommands,
        limit,
      },
      {
        name: 'hit.freshProcess',
        subject: 'first fetch of a scope in a process',
        baseline: 'plain GET + decode',
        ...freshProcess,
        commands: freshCommands,
        limit,
      },
    ];
  } finally {
    await Promise.all([writer.close(), reader.close(), fresh?.close()]);
  }
};
