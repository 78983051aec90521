import { setImmediate } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import type { GenerationalCache } from '../../lib/index.js';
import type { Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { compare, ofRates } from '../measure.js';
import { bentocacheTiers, groupsInMemory, nodeRedisCached } from '../rivals/tiers.js';
import type { Row } from '../row.js';
import { DETECTORS, ENVIRONMENT, fiveWorkflows, type ThreeLevels, threeLevels } from '../workload.js';

const LOCAL = { local: { mode: 'track', maxEntries: 10_000 } } as const;
const SCOPES = 5_000;
/** Peeks of one operation: a block awaits each operation, which costs more than a peek. */
const PEEKS = 500;
const WARM_WITHIN_MS = 30_000;

/** Five workflows as every rival gives them back: a Date comes as text. */
export function fivePlain(): object[] {
  return fiveWorkflows(ENVIRONMENT).map((workflow) => ({ ...workflow, updatedAt: workflow.updatedAt.toISOString() }));
}

/** Warm hits that need no command, against caches that hold values in the process and hear of changes elsewhere, or by TTL. */
export const localTrackFetch: Measure = async ({ redisUrl, plan }) => {
  const levels = threeLevels(redisUrl, 'local.track.fetch', LOCAL);
  const plain = levels.environments.value('plain', { load: fivePlain });
  const ids = Array.from({ length: DETECTORS }, (_, detector) => ({ detector, environment: ENVIRONMENT }));
  const rows: Row[] = [];
  try {
    await answersItself(
      levels,
      () => plain.fetchMany(ids),
      () => ids.every((id) => plain.peek(id) !== undefined),
    );
    for (const [start, ratio] of [
      [bentocacheTiers, 20],
      [groupsInMemory, 1],
      [nodeRedisCached, 1],
    ] as const) {
      const rival = await start(redisUrl, DETECTORS, fivePlain);
      try {
        const missed = asked(levels.cache);
        const commands = await countCommands(redisUrl, () => plain.fetch(ids[0]!));
        const beforeBlock = () => setImmediate(); // beats arrive
        const comparison = await compare(
          { run: (index) => plain.fetch(ids[index % DETECTORS]!), beforeBlock },
          { run: (index) => rival.get(index % DETECTORS), beforeBlock },
          plan,
        );
        noneAsked(levels.cache, missed);
        rows.push({
          name: `local.track.fetch.${rival.name}`,
          subject: "fetches/s with local: { mode: 'track' }",
          baseline: rival.subject,
          ...ofRates(comparison),
          commands,
          unit: 'rate',
          limit: { atLeast: ratio, commands: 0 },
        });
      } finally {
        await rival.close();
      }
    }
  } finally {
    await levels.close();
  }
  return rows;
};

/** Synchronous hits of 5,000 scopes in random order, by ids that are passed to each call, against a Map with an order of use. */
export const localTrackPeek: Measure = async ({ redisUrl, plan }) => {
  const levels = threeLevels(redisUrl, 'local.track.peek', LOCAL);
  const plain = levels.detectors.value('plain', { load: fivePlain });
  const ids = shuffled(Array.from({ length: SCOPES }, (_, detector) => ({ detector })));
  const keys = ids.map(({ detector }) => `local.track.peek:1:detector=${detector}:plain`);
  const lru = new LRUCache<string, object>({ max: 10_000 });
  for (const key of keys) lru.set(key, fivePlain());
  try {
    await answersItself(
      levels,
      () => plain.fetchMany(ids),
      () => ids.every((id) => plain.peek(id) !== undefined),
    );
    const missed = asked(levels.cache);
    const commands = await countCommands(redisUrl, async () => plain.peek(ids[0]!));
    let at = 0;
    const each = (get: (index: number) => unknown) => () => {
      for (let i = 0; i < PEEKS; i++)
        if (get((at = (at + 1) % SCOPES)) === undefined) throw new Error('A hit is measured.');
    };
    const beforeBlock = () => setImmediate(); // beats arrive
    const comparison = await compare(
      { run: each((index) => plain.peek(ids[index]!)), beforeBlock },
      { run: each((index) => lru.get(keys[index]!)), beforeBlock },
      plan,
    );
    noneAsked(levels.cache, missed);
    return [
      {
        name: 'local.track.peek',
        subject: `peeks/s, of ${SCOPES} scopes in random order`,
        baseline: 'lru-cache get, by keys made before',
        ...ofRates(comparison),
        commands,
        unit: 'rate',
        limit: { atLeast: 0.6, commands: 0 },
        note: `times are of ${PEEKS}`,
      },
    ];
  } finally {
    await levels.close();
  }
};

/** Reads until the process answers all by itself. */
async function answersItself(
  { cache }: ThreeLevels,
  read: () => Promise<unknown>,
  isWarm: () => boolean,
): Promise<void> {
  const sinceMs = performance.now();
  do {
    if (performance.now() - sinceMs > WARM_WITHIN_MS) throw new Error('The process does not answer by itself.');
    await read();
    await cache.settled();
    await setImmediate();
  } while (!isWarm());
}

/** Number of hits that asked the store. */
function asked({ statistics }: Pick<GenerationalCache, 'statistics'>): number {
  return statistics.total('hits') - statistics.total('tracked_hits') + statistics.total('misses');
}

/** Throws if more than a few hits asked the store: a beat may be late on a busy machine. */
function noneAsked(cache: Pick<GenerationalCache, 'statistics'>, since: number): void {
  const share = (asked(cache) - since) / cache.statistics.total('hits');
  if (share > 0.01)
    throw new Error(`A hit without a command is measured: ${(100 * share).toFixed(1)} % asked the store.`);
}

function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, by: Math.random() }))
    .toSorted((a, b) => a.by - b.by)
    .map(({ item }) => item);
}
