import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { formatGeneration, nonce } from '../../lib/model/generation.js';
import { compare } from '../measure.js';
import { scopeIds, type ThreeLevels, threeLevels } from '../workload.js';

const SCOPES = 10_000;
const ENVIRONMENT = 7;

/** A bump of ten thousand cached scopes; first, once, with a look at what misses afterwards. */
export const bumpMany: Measure = async ({ redis, redisUrl, quick }) => {
  const levels = threeLevels(redisUrl, 'bump-many');
  const bumped = scopeIds(SCOPES, ENVIRONMENT);
  const siblings = scopeIds(SCOPES, null);
  const bump = () => levels.environments.bumpMany(bumped);
  const keys = bumped.map(({ detector }) => `plainset:{bump-many:0}:g:detector=${detector}/environment=${ENVIRONMENT}`);
  const value = formatGeneration(1, nonce());
  try {
    await read(levels, [...bumped, ...siblings]);
    const warm = await read(levels, [...bumped, ...siblings]);
    const commands = await countCommands(redisUrl, bump);
    const beside = await read(levels, siblings);
    const after = await read(levels, bumped);
    const paths = new Set(bumped.map(({ detector }) => `detector=${detector}/environment=${ENVIRONMENT}`));
    const exact = after.missed.size === SCOPES && [...after.missed].every((path) => paths.has(path));
    if (warm.hits !== 2 * SCOPES || beside.hits !== SCOPES || beside.missed.size > 0 || !exact) {
      throw new Error(
        `A bump of ${SCOPES} scopes makes each of them miss and none of their siblings: ${warm.hits} were warm; then ` +
          `${after.missed.size} of them missed and ${beside.missed.size} siblings.`,
      );
    }
    const comparison = await compare(
      { run: bump },
      {
        run: async () => {
          const pipeline = redis.pipeline();
          for (const key of keys) pipeline.set(key, value);
          await pipeline.exec();
        },
      },
      { pairs: quick ? 40 : 120, operations: 1, warmUpMs: 2_000 },
    );
    return [
      {
        name: 'bump.many',
        subject: `bumpMany of ${SCOPES} cached scopes`,
        baseline: `${SCOPES} SETs in a pipeline`,
        ...comparison,
        commands,
        limit: { ratio: 1.5 },
        note: `each of them missed afterwards, and none of ${SCOPES} siblings`,
      },
    ];
  } finally {
    await levels.close();
  }
};

/** Reads and fills; what was a hit, and which paths were not. */
async function read({ cache, workflows }: ThreeLevels, ids: ReturnType<typeof scopeIds>) {
  let hits = 0;
  const missed = new Set<string>();
  const stop = cache.on('read', (event) => {
    hits += event.hits;
    for (const { path } of event.missed) missed.add(path);
  });
  await workflows.fetchMany(ids);
  await cache.settled();
  stop();
  return { hits, missed };
}
