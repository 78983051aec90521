import { Redis } from 'ioredis';
import { GenerationalCache, integer } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { knexSource } from '../../lib/knex/index.js';
import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { ITEMS, makeItems, startDurable } from '../durable.js';
import { compare } from '../measure.js';
import { TTL_MS } from '../workload.js';

/** A strict transaction that changes a row and bumps a cached scope, beside the same one, not strict. */
export const writeStrict: Measure = async ({ redisUrl, quick }) => {
  const { db, stop } = await startDurable();
  const cache = new GenerationalCache({
    name: 'strict',
    store: redisStore(new Redis(redisUrl, { lazyConnect: true })),
    source: knexSource(db),
    ttlMs: TTL_MS,
    bumpDeadlineMs: 10_000,
  });
  const detectors = cache.namespace('detector', integer());
  const names = detectors.list('names', {
    load: (ids, { db }) =>
      db('item').whereIn(
        'detector_id',
        ids.map(({ detector }) => detector),
      ),
    by: ({ detector_id }: { detector_id: string; name: string }) => ({ detector: detector_id }),
    value: ({ name }) => name,
  });
  let commits = 0;
  const transact = async (strict: boolean) => {
    const id = 1 + (commits++ % ITEMS);
    const { bump, strict: kept } = await cache.transaction(
      async (trx) => {
        await trx('item').where({ id }).update({ updated_at: trx.fn.now() });
        await detectors.bump({ detector: id % 100 }, { trx });
      },
      { strict },
    );
    if (bump !== 'done' || kept === 'degraded') throw new Error(`A commit bumps, and strict ones are kept: ${bump}.`);
  };
  let queries = 0;
  db.on('query', () => queries++);
  const counted = async (strict: boolean) => {
    queries = 0;
    const commands = await countCommands(redisUrl, () => transact(strict));
    return { commands, queries };
  };
  try {
    await makeItems(db, 'item', 100);
    await names.fetchMany(Array.from({ length: 100 }, (_, detector) => ({ detector })));
    await cache.settled();
    // The first takes a connection from the pool, and one asks who the cache's server is.
    await transact(true);
    const plain = await counted(false);
    const strict = await counted(true);
    const comparison = await compare(
      { run: () => transact(true) },
      { run: () => transact(false) },
      { pairs: quick ? 60 : 200, operations: 5 },
    );
    return [
      {
        name: 'write.strict',
        subject: 'strict transaction: a changed row, a cached scope',
        baseline: 'the same, not strict',
        ...comparison,
        commands: strict.commands - plain.commands,
        limit: { commands: 3 },
        note:
          `commands: how many more than ${plain.commands}; ${strict.queries} queries instead of ${plain.queries}, ` +
          'BEGIN and COMMIT included',
      },
    ];
  } finally {
    await cache.close();
    await stop();
  }
};
