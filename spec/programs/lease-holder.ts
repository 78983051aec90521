/**
 * A process that loads one entry and takes its time. argv: the URL of Redis, the name of the cache, how long a load takes in
 * ms.
 *
 * A load reads the version at the key `version` of Redis at once, prints `loading`, and returns it after that time. Prints
 * `loaded <version>` when the fetch has its answer and the fill has ended.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { GenerationalCache } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';

const [url, name, loadMs] = process.argv.slice(2) as [string, string, string];
const redis = new Redis(url);
const cache = new GenerationalCache({ name, store: redisStore(redis), readDeadlineMs: 5_000, leaseTtlMs: 500 });
const value = cache.one('value', {
  async load() {
    const version = Number(await redis.get('version'));
    process.stdout.write('loading\n');
    await sleep(Number(loadMs));
    return [{ version }];
  },
  by: () => ({}),
});
const row = await value.fetch({});
await cache.settled();
process.stdout.write(`loaded ${row!.version}\n`);
await cache.close();
redis.disconnect();
