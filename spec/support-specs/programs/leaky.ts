/** A spec file for mocha in a child process: each of its specs but the last fails, and says why. */
import { Redis } from 'ioredis';
import { createServer } from 'node:net';
import { lendDatabase } from '../../support/postgres.js';
import { lendRedis, privateRedis, redisUrl, uniqueName } from '../../support/redis.js';

describe('leaky', () => {
  it('leaves a client of its own', async () => {
    await new Redis(redisUrl()).ping();
  });

  it('leaves a transaction open', async () => {
    const database = await lendDatabase();
    await database.schema.createTable('things', (table) => table.integer('id'));
    const transaction = await database.transaction();
    await transaction('things').insert({ id: 1 });
  });

  it('leaves a server listening', async () => {
    await new Promise<void>((resolve) => createServer().listen(0, '127.0.0.1', resolve));
  });

  it('fails', async () => {
    const [server, database] = [await privateRedis(), await lendDatabase()];
    await database.schema.createTable('things', (table) => table.integer('id'));
    await lendRedis({ url: server.url }).set(uniqueName(), 'v');
    throw new Error('on purpose');
  });

  it('returns everything', async () => {
    const [server, database] = [await privateRedis(), await lendDatabase()];
    await database.raw('select 1');
    await lendRedis({ url: server.url }).ping();
  });
});
