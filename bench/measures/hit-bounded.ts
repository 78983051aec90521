import { setTimeout as sleep } from 'node:timers/promises';
import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { startDurable } from '../durable.js';
import { compare } from '../measure.js';
import { OtherRelay } from '../relay.js';
import { DETECTORS, notHits, onlyHits, scopeIds, threeLevels } from '../workload.js';

const BOUND_MS = 5_000;

/** A hit that is no older than a bound, for which a relay in another process vouches, beside one without a bound. */
export const hitBounded: Measure = async ({ redisUrl, plan }) => {
  const { db, url, stop } = await startDurable();
  const relay = new OtherRelay({ cache: 'hit-bounded', postgresUrl: url, redisUrl, maxStalenessMs: BOUND_MS });
  const bounded = threeLevels(redisUrl, 'hit-bounded', { maxStalenessMs: BOUND_MS });
  const unbounded = threeLevels(redisUrl, 'hit-bounded');
  const ids = scopeIds(DETECTORS);
  try {
    await relay.start();
    // Both read the same entries.
    await unbounded.workflows.fetchMany(ids);
    await unbounded.cache.settled();
    // The relay's first check repairs, and the next one vouches.
    while ((await bounded.workflows.lookup(ids[0]!)).outcome !== 'hit') await sleep(10);
    await bounded.workflows.fetchMany(ids);

    const starts = [bounded, unbounded].map(({ cache }) => notHits(cache));
    // Its own commands are none of a hit's, and what it vouched for lasts for as long as the bound.
    await relay.stop(db);
    const plainCommands = await countCommands(redisUrl, () => unbounded.workflows.fetch(ids[0]!));
    const commands = await countCommands(redisUrl, () => bounded.workflows.fetch(ids[0]!));
    await relay.start();
    const comparison = await compare(
      { run: (index) => bounded.workflows.fetch(ids[index % DETECTORS]!) },
      { run: (index) => unbounded.workflows.fetch(ids[index % DETECTORS]!) },
      plan,
    );
    [bounded, unbounded].forEach(({ cache }, side) => onlyHits(cache, starts[side]!));
    return [
      {
        name: 'hit.bounded',
        subject: 'fetch of global > detector > environment with maxStalenessMs',
        baseline: 'the same without',
        ...comparison,
        commands,
        limit: { ratio: 1.1, commands: plainCommands },
      },
    ];
  } finally {
    await Promise.all([bounded.close(), unbounded.close()]);
    relay.end();
    await stop();
  }
};
