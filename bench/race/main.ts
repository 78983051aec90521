/**
 * `npm run race`: what gencache and other caching libraries answer after an invalidation that overtakes a load
 * (`race.ts`), as a Markdown table.
 *
 * Starts a Redis and a PostgreSQL of its own and stops them. Exits with 1 if gencache gives the old row, or if a library
 * does not work without a race.
 */
import { Redis } from 'ioredis';
import knex from 'knex';
import { startPostgres } from '../../spec/support/servers/postgres-server.js';
import { startRedis } from '../../spec/support/servers/redis-server.js';
import type { Contestant } from './contestant.js';
import { asyncCacheDedupe } from './libraries/async-cache-dedupe.js';
import { bentocache } from './libraries/bentocache.js';
import { cacheManager } from './libraries/cache-manager.js';
import { cacheable } from './libraries/cacheable.js';
import { gencache } from './libraries/gencache.js';
import { layeredLoader } from './libraries/layered-loader.js';
import { Product } from './product-row.js';
import { type Answer, assertWorksWithoutRace, readAfterwards, readMeanwhile, type Track } from './race.js';

const CONTESTANTS: readonly Contestant[] = [
  ...gencache,
  ...bentocache,
  ...cacheable,
  ...cacheManager,
  ...layeredLoader,
  ...asyncCacheDedupe,
];
const REPETITIONS = 10;

async function main(): Promise<void> {
  const [server, postgres] = await Promise.all([startRedis(), startPostgres()]);
  const redis = new Redis(server.url);
  const db = knex({ client: 'pg', connection: postgres.url, pool: { min: 0, max: 4 } });
  try {
    const track: Track = { redisUrl: server.url, redis, product: await Product.create(db) };
    const lines = [
      [
        'library',
        'version',
        'store',
        'invalidated by',
        'read after the load ended',
        'read that began before the load ended',
      ],
      Array.from({ length: 6 }, () => '---'),
    ];
    for (const contestant of CONTESTANTS) {
      await assertWorksWithoutRace(track, contestant);
      const afterwards = await repeat(() => readAfterwards(track, contestant));
      const meanwhile = await repeat(() => readMeanwhile(track, contestant));
      const { library, version, store = 'Redis', invalidatedBy } = contestant;
      lines.push([library, version, store, `\`${invalidatedBy}\``, summary(afterwards), summary(meanwhile)]);
      if (library === 'gencache' && [...afterwards, ...meanwhile].some(({ row }) => row === 'old'))
        process.exitCode = 1;
    }
    process.stdout.write(`${lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')}\n`);
    const info = await redis.info('server');
    process.stderr.write(
      `Node ${process.versions.node}, Redis ${/redis_version:(\S+)/.exec(info)?.[1]}; ` +
        `each race ${REPETITIONS} times\n`,
    );
  } finally {
    redis.disconnect();
    await db.destroy();
    await Promise.all([server.stop(), postgres.stop()]);
  }
}

async function repeat(race: () => Promise<Answer>): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (let repetition = 0; repetition < REPETITIONS; repetition++) answers.push(await race());
  return answers;
}

/** The row that all repetitions got, or how many got which. Unless said, an old row came without a load, a new one with. */
function summary(answers: readonly Answer[]): string {
  const counts = new Map<string, number>();
  for (const { row, loaded } of answers) {
    const text = row === 'old' ? `**old**${loaded ? ', loaded' : ''}` : `new${loaded ? '' : ', not loaded'}`;
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  const texts = [...counts].map(([text, count]) => (count === answers.length ? text : `${text} ×${count}`));
  return texts.join(', ');
}

await main();
