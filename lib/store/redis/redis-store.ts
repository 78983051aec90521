import type { Redis } from 'ioredis';
import type { Deadline } from '../../deadline.js';
import { describe } from '../../describe.js';
import { ConfigurationError } from '../../errors.js';
import { generation, parseGeneration } from '../../generation.js';
import type { EntryKey, GenerationKey } from '../../key.js';
import type { FillBatch, FillReply, Store, StoreListener } from '../store.js';
import { Connection } from './connection.js';
import { Mget } from './mget.js';

/**
 * A store on Redis 6.2 or later, for one cache.
 *
 * `redis` says where: the store connects at once by `duplicate()`, with settings of its own, and leaves `redis`
 * itself alone. Throws ConfigurationError for a client with a keyPrefix, one that reads from replicas, and a Cluster.
 */
export function redisStore(redis: Redis): Store {
  checkClient(redis);
  return new RedisStore(new Connection(redis));
}

class RedisStore implements Store {
  readonly name = 'redis';
  readonly #connection: Connection;
  #listening = false;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  listen(listener: StoreListener): void {
    if (this.#listening) {
      throw new ConfigurationError(
        'A Redis store serves one cache, which closes its connection. This one already has a cache. ' +
          'Call redisStore(redis) once for each.',
      );
    }
    this.#listening = true;
    this.#connection.listen(listener);
  }

  read(keys: readonly (GenerationKey | EntryKey)[], deadline: Deadline): Promise<(Buffer | null)[]> {
    return this.#connection.send(
      deadline,
      (client) => client.sendCommand(new Mget(keys)) as Promise<(Buffer | null)[]>,
    );
  }

  async mint(
    keys: readonly GenerationKey[],
    token: string,
    ttlMs: number,
    deadline: Deadline,
  ): ReturnType<Store['mint']> {
    const values = await this.#connection.send(deadline, (client) =>
      client.gencacheMint(keys.length, [...keys, token, ttlMs]),
    );
    return values.map((value) => parseGeneration(value) ?? 'foreign');
  }

  async bump(
    keys: readonly GenerationKey[],
    attempt: string,
    ttlMs: number,
    deadline: Deadline,
  ): ReturnType<Store['bump']> {
    const args = [...keys, attempt, ttlMs];
    const replies = await this.#connection.send(deadline, (client) => client.gencacheBump(keys.length, args));
    return (typeof replies === 'number' ? [replies] : replies).map((bumps) =>
      bumps === -1 ? 'missing' : bumps === -2 ? 'foreign' : generation(bumps, attempt),
    );
  }

  async fill({ guards, entries }: FillBatch, deadline: Deadline): Promise<FillReply[]> {
    const keys = [...guards.map((guard) => guard.key), ...entries.map((entry) => entry.key)];
    const args = [
      guards.length,
      ...guards.flatMap((guard) => [guard.token, guard.ttlMs]),
      ...entries.flatMap((entry) => [entry.bytes, entry.ttlMs, entry.guards.map((guard) => guard + 1).join()]),
    ];
    const replies = await this.#connection.send(deadline, (client) =>
      client.gencacheFill(keys.length, [...keys, ...args]),
    );
    return replies.split('').map((reply) => (reply === '1' ? 'filled' : reply === '0' ? 'moved' : 'foreign'));
  }

  delete(keys: readonly EntryKey[], deadline: Deadline): Promise<number> {
    return this.#connection.send(deadline, (client) => client.unlink([...keys]));
  }

  async close(): Promise<void> {
    this.#connection.close();
  }
}

function checkClient(redis: Redis): void {
  if (typeof redis?.duplicate !== 'function' || redis.options === undefined) {
    throw new ConfigurationError(
      `A Redis store connects as an ioredis client does. Got ${describe(redis)}. Pass \`new Redis(url)\` of ioredis.`,
    );
  }
  if (redis.isCluster) {
    throw new ConfigurationError(
      'One command must be able to read an entry and its generations. Got a Redis Cluster client, on which keys of ' +
        'one cache lie on several servers. Pass a client of a single primary, or of its Sentinels.',
    );
  }
  const { keyPrefix, readOnly, role } = redis.options;
  if (keyPrefix) {
    throw new ConfigurationError(
      `A cache's keys are built in one place and start with its name. Got an ioredis client with keyPrefix ` +
        `${describe(keyPrefix)}, of which scripts and other clients know nothing. Put it into the cache's name instead.`,
    );
  }
  if (readOnly || role === 'slave') {
    throw new ConfigurationError(
      'Generations are read from a primary: a replica may be behind, and would show what was already bumped. Got an ' +
        `ioredis client with ${readOnly ? 'readOnly: true' : "role: 'slave'"}. Pass a client of the primary.`,
    );
  }
}
