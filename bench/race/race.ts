/**
 * The race: a load reads a row and is held, the row changes, the cache is told, and only then the load ends.
 *
 *   1. a reader misses; its load has queried the old row and is held before it answers
 *   2. an UPDATE of the row commits
 *   3. the entry is invalidated, and the call that invalidates has resolved
 *   4. the load goes on, and the library stores its value or refuses to
 *   5. a later reader reads
 *
 * The first reader may answer with the old row, since it began before the UPDATE. A reader that begins after step 3 may
 * not. `readAfterwards` begins at step 5. `readMeanwhile` begins between 3 and 4, where it can join the held load.
 */
import type { Redis } from 'ioredis';
import type { Contestant, OpenCache } from './contestant.js';
import { NEW_PRICE, OLD_PRICE, type Product } from './product-row.js';

/** Which row a reader got, and whether it took a load of its own. */
export interface Answer {
  readonly row: 'old' | 'new';
  readonly loaded: boolean;
}

export interface Track {
  readonly redisUrl: string;
  /** A client of a private server: each race starts with an empty one. */
  readonly redis: Redis;
  readonly product: Product;
}

/** The answer of a reader that begins when everything above is over. */
export function readAfterwards(track: Track, contestant: Contestant): Promise<Answer> {
  return race(track, contestant, async ({ cache, first, release }) => {
    release();
    await first;
    await cache.settled?.();
    return answerOf(track, cache);
  });
}

/** The answer of a reader that begins after the invalidation, while the old load is still held. */
export function readMeanwhile(track: Track, contestant: Contestant): Promise<Answer> {
  return race(track, contestant, async ({ cache, first, release }) => {
    const answer = answerOf(track, cache);
    await roundTrips(track.redis);
    release();
    await first;
    return answer;
  });
}

/**
 * Throws unless the library hits, and unless its invalidation makes the next reader load, when nothing races. A cache
 * that stores nothing would win every race.
 */
export async function assertWorksWithoutRace(track: Track, contestant: Contestant): Promise<void> {
  await withCache(track, contestant, async (cache) => {
    const answers: Answer[] = [];
    const read = async () => {
      answers.push(await answerOf(track, cache));
      await cache.settled?.();
    };
    await read();
    await read();
    await track.product.setPrice(NEW_PRICE);
    await nextMillisecond();
    await cache.invalidate();
    await nextMillisecond();
    await read();
    await read();
    const got = answers.map(({ row, loaded }) => `${row}${loaded ? ', loaded' : ''}`).join('; ');
    if (got !== 'old, loaded; old; new, loaded; new')
      throw new Error(
        `A library must miss, hit, miss after ${contestant.invalidatedBy}, and hit, but ${contestant.library} ` +
          `${contestant.version} answered: ${got}. Adapt its file in bench/race/libraries.`,
      );
  });
}

interface Invalidated {
  readonly cache: OpenCache;
  /** The reader whose load is held. */
  readonly first: Promise<unknown>;
  readonly release: () => void;
}

async function race(
  track: Track,
  contestant: Contestant,
  finish: (at: Invalidated) => Promise<Answer>,
): Promise<Answer> {
  return withCache(track, contestant, async (cache) => {
    const { hasRead, release } = track.product.holdNextLoad();
    const first = cache.read();
    try {
      const held = await Promise.race([hasRead.then(() => true), first.then(() => false)]);
      if (!held) throw new Error(`A race begins with a miss, but ${contestant.library} answered without its load.`);
      await track.product.setPrice(NEW_PRICE);
      await cache.invalidate();
      await nextMillisecond();
      return await finish({ cache, first, release });
    } finally {
      release();
      await first;
    }
  });
}

async function withCache<T>(
  { redis, redisUrl, product }: Track,
  contestant: Contestant,
  use: (cache: OpenCache) => Promise<T>,
): Promise<T> {
  await redis.flushall();
  await product.setPrice(OLD_PRICE);
  const cache = await contestant.open(redisUrl, product.load);
  try {
    return await use(cache);
  } finally {
    await cache.close();
  }
}

async function answerOf({ product }: Track, cache: OpenCache): Promise<Answer> {
  const loadsBefore = product.loads;
  const row = await cache.read();
  if (row?.price !== OLD_PRICE && row?.price !== NEW_PRICE)
    throw new Error(`A reader must get the row, but got ${JSON.stringify(row)}.`);
  return { row: row.price === OLD_PRICE ? 'old' : 'new', loaded: product.loads > loadsBefore };
}

/**
 * Lets a reader come as far as it can: to a load of its own, or to waiting for the held one. The longest hit that bench
 * measures (bentocache, three tags) takes 7 round trips.
 */
async function roundTrips(redis: Redis): Promise<void> {
  for (let trip = 0; trip < 100; trip++) await redis.ping();
}

/**
 * Waits until the clock shows another millisecond. Libraries that compare timestamps of whole milliseconds would
 * otherwise be judged by luck; real loads are longer than one.
 */
async function nextMillisecond(): Promise<void> {
  const now = Date.now();
  while (Date.now() === now) await new Promise(setImmediate);
}
