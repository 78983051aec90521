import type { Redis } from 'ioredis';
import type { Deadline } from '../../async/deadline.js';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import { formatGeneration, generationState } from '../../model/generation.js';
import { type EntryKey, type FreshnessKey, type GenerationKey, leaseKey, type MarkKey } from '../../model/key.js';
import { DEMAND_STANDS_MS } from '../../model/bound-demands.js';
import {
  type Claim,
  type ClaimBatch,
  type Claimed,
  type Demand,
  type FillBatch,
  type Filled,
  type FillReply,
  MARK_TTL_MS,
  type Renewal,
  type Repair,
  repairRefused,
  type Store,
  type StoreListener,
} from '../../ports/store.js';
import { RedisConnection } from './redis-connection.js';
import { Mget } from './commands/mget.js';

/**
 * A store on Redis 6.2 or later, for one cache.
 *
 * `redis` gives the address: the store connects at once on a `duplicate()` with its own settings, and leaves `redis`
 * itself alone. Each reconnection takes the options that `redis` has then, so a password or a certificate can be renewed:
 * `redis.options.password = token`. Throws ConfigurationError for a client with a keyPrefix, a client that reads from
 * replicas, and a Cluster.
 */
export function redisStore(redis: Redis): Store {
  checkClient(redis);
  return new RedisStore(new RedisConnection(redis));
}

/** The bump script's replies for keys that get no new generation. */
const UNBUMPED = { [-1]: 'missing', [-2]: 'foreign', [-3]: 'quarantined' } as const;

const CLAIMS: Readonly<Record<string, Claim>> = {
  y: 'yours',
  o: 'free',
  h: 'held',
  f: 'filled',
  m: 'moved',
  x: 'leaseless',
};
const FILL_REPLIES: Readonly<Record<string, FillReply>> = { 1: 'filled', 0: 'moved', x: 'foreign', e: 'expired' };

/** Indexes, as positions from 1 in Lua. */
function positions(indexes: readonly number[]): string {
  return indexes.map((index) => index + 1).join();
}

class RedisStore implements Store {
  readonly name = 'redis';
  readonly #connection: RedisConnection;
  #listening = false;

  constructor(connection: RedisConnection) {
    this.#connection = connection;
  }

  listen(listener: StoreListener): void {
    if (this.#listening) {
      throw new ConfigurationError(
        'A Redis store must serve one cache, which closes its connection, but got a second one. ' +
          'Call redisStore(redis) once for each cache.',
      );
    }
    this.#listening = true;
    this.#connection.listen(listener);
  }

  get incarnation(): string | undefined {
    return this.#connection.incarnation;
  }

  revalidate(): void {
    this.#connection.revalidate();
  }

  read(keys: readonly (GenerationKey | EntryKey | FreshnessKey)[], deadline: Deadline): Promise<(Buffer | null)[]> {
    return this.#connection.sendUnlessDown(
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
    const values = await this.#connection.sendUnlessDown(deadline, (client) =>
      client.gencacheMint(keys.length, [...keys, token, ttlMs]),
    );
    return values.map(generationState);
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
      bumps >= 0 ? formatGeneration(bumps, attempt) : UNBUMPED[bumps as keyof typeof UNBUMPED],
    );
  }

  async claim({ guards, entries, token, ttlMs }: ClaimBatch, deadline: Deadline): Promise<Claimed> {
    const keys: string[] = [];
    const args: (string | number | Buffer)[] = [guards.length, token ?? '', ttlMs];
    for (const guard of guards) {
      keys.push(guard.key);
      args.push(guard.token);
    }
    for (const { key, replaced, guards: own } of entries) {
      keys.push(key);
      args.push(replaced ?? '', positions(own));
    }
    for (const { key } of entries) keys.push(leaseKey(key));
    const [replies, timeMs] = await this.#connection.sendUnlessDown(deadline, (client) =>
      client.gencacheClaim(keys.length, [...keys, ...args]),
    );
    return { claims: replies.split('').map((reply) => CLAIMS[reply]!), timeMs };
  }

  async renewLeases(keys: readonly EntryKey[], token: string, ttlMs: number, deadline: Deadline): Promise<void> {
    const args = [...keys.map(leaseKey), token, ttlMs];
    await this.#connection.sendUnlessDown(deadline, (client) => client.gencacheLease(keys.length, args));
  }

  failLeases(keys: readonly EntryKey[], token: string, deadline: Deadline): Promise<void> {
    return this.renewLeases(keys, token, 0, deadline);
  }

  async fill({ guards, entries, asOfMs, lease }: FillBatch, deadline: Deadline): Promise<Filled> {
    const keys: string[] = [];
    const args: (string | number | Buffer)[] = [guards.length, lease ?? '', asOfMs];
    for (const guard of guards) {
      keys.push(guard.key);
      args.push(guard.token, guard.ttlMs);
    }
    for (const { key, bytes, ttlMs, guards: own } of entries) {
      keys.push(key);
      args.push(bytes, ttlMs, positions(own));
    }
    if (lease !== undefined) for (const { key } of entries) keys.push(leaseKey(key));
    const [replies, timeMs] = await this.#connection.sendUnlessDown(deadline, (client) =>
      client.gencacheFill(keys.length, [...keys, ...args]),
    );
    return { replies: replies.split('').map((reply) => FILL_REPLIES[reply]!), timeMs };
  }

  delete(keys: readonly EntryKey[], deadline: Deadline): Promise<number> {
    return this.#connection.send(deadline, (client) => client.unlink([...keys]));
  }

  quarantine(keys: readonly GenerationKey[], token: string, ttlMs: number, deadline: Deadline): Promise<number> {
    return this.#connection.send(deadline, (client) => client.gencacheQuarantine(keys.length, [...keys, token, ttlMs]));
  }

  async lift(
    keys: readonly GenerationKey[],
    token: string,
    attempt: string,
    ttlMs: number,
    deadline: Deadline,
  ): ReturnType<Store['lift']> {
    const replies = await this.#connection.send(deadline, (client) =>
      client.gencacheLift(keys.length, [...keys, token, attempt, ttlMs]),
    );
    return replies.split('').map((reply) => (reply === '1' ? 'kept' : 'lapsed'));
  }

  async timeMs(deadline: Deadline): Promise<number> {
    const [seconds, microseconds] = await this.#connection.send(deadline, (client) => client.time());
    return Number(seconds) * 1_000 + Math.floor(Number(microseconds) / 1_000);
  }

  async renew(
    { markKey, mark, incarnation, keys, asOfMs, nonce }: Renewal,
    deadline: Deadline,
  ): ReturnType<Store['renew']> {
    const args = [
      markKey,
      ...keys.map(({ key }) => key),
      ...[mark, incarnation, nonce, MARK_TTL_MS, asOfMs],
      ...keys.map(({ untilMs }) => untilMs),
    ];
    const reply = await this.#connection.send(deadline, (client) => client.gencacheRenew(1 + keys.length, args));
    if (reply < 0) this.revalidate();
    return reply === 1 ? 'renewed' : reply === 0 ? 'unmarked' : 'other_server';
  }

  async repair({ globalKey, markKey, mark, incarnation, attempt, ttlMs }: Repair, deadline: Deadline): Promise<void> {
    const args = [globalKey, markKey, mark, MARK_TTL_MS, incarnation, attempt, ttlMs];
    const reply = await this.#connection.send(deadline, (client) => client.gencacheRepair(2, args));
    if (reply === 1) return;
    this.revalidate();
    throw repairRefused(incarnation);
  }

  async demand({ demandsKey, markKey, boundMs }: Demand, deadline: Deadline): Promise<number | undefined> {
    const args = [demandsKey, markKey, boundMs, DEMAND_STANDS_MS, MARK_TTL_MS];
    const reply = await this.#connection.send(deadline, (client) => client.gencacheDemand(2, args));
    return reply === '' ? undefined : Number(reply);
  }

  readMark(markKey: MarkKey, deadline: Deadline): Promise<string | null> {
    return this.#connection.send(deadline, (client) => client.get(markKey));
  }

  async close(): Promise<void> {
    this.#connection.close();
  }
}

function checkClient(redis: Redis): void {
  if (typeof redis?.duplicate !== 'function' || redis.options === undefined) {
    throw new ConfigurationError(
      `The client of a Redis store must be an ioredis client, but got ${describe(redis)}. Pass \`new Redis(url)\` of ioredis.`,
    );
  }
  if (redis.isCluster) {
    throw new ConfigurationError(
      'The client of a Redis store must be one of a single primary, where one command reads an entry and its ' +
        'generations, but got a Redis Cluster client. Pass a client of a primary, or of its Sentinels.',
    );
  }
  const { keyPrefix, readOnly, role } = redis.options;
  if (keyPrefix) {
    throw new ConfigurationError(
      `The client of a Redis store must have no keyPrefix, but got ${describe(keyPrefix)}. Put the prefix into the ` +
        "cache's name, with which every key starts.",
    );
  }
  if (readOnly || role === 'slave') {
    throw new ConfigurationError(
      'The client of a Redis store must read from a primary, since a replica may lag behind and show old generations, ' +
        `but got one with ${readOnly ? 'readOnly: true' : "role: 'slave'"}. Pass a client of the primary.`,
    );
  }
}
