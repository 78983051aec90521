/**
 * A process that uses a cache, and closes it when its Redis is gone. argv: the URL.
 *
 * Prints `connected` after its first read, `closed` after `close()`, and then ends by itself, if nothing holds it.
 */
import { Redis } from 'ioredis';
import { GenerationalCache } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';

const redis = new Redis(process.argv[2]!, { lazyConnect: true });
const cache = new GenerationalCache({ name: 'closing', store: redisStore(redis) });
const value = cache.one('value', { load: async () => ['loaded'], by: () => ({}) });
await value.fetch({});
await cache.settled();
process.stdout.write('connected\n');

const bypasses = () => cache.statistics.total('bypasses');
const before = bypasses();
while (bypasses() === before) await value.fetch({});
await cache.close();
process.stdout.write('closed\n');
