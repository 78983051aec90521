import type { Cluster, Redis } from 'ioredis';
import type { Deadline } from '../../async/deadline.js';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import { formatGeneration, type Generation, generationState, nonce } from '../../model/generation.js';
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
  type FreshnessReading,
  MARK_TTL_MS,
  type Renewal,
  type Repair,
  repairRefused,
  type PartitionedStore,
  type Store,
  type StoreLifecycle,
  type StoreListener,
  type StorePartition,
  type Tracking,
  type TrackingListener,
  type TrackingOptions,
} from '../../ports/store.js';
import { PARTITIONS_MAX } from '../../model/key.js';
import { wholeNumber } from '../../errors/option-checks.js';
import { ClusterClient } from './cluster/cluster-client.js';
import { ClusterConnection } from './cluster/cluster-connection.js';
import { slotOf } from './cluster/slot.js';
import { MovingSlotError } from './cluster/slot-route.js';
import { RedisConnection, type Route } from './redis-connection.js';
import { Mget } from './commands/mget.js';
import { PartitionTracker, type PushSource } from './tracking/partition-tracker.js';
import { TrackingConnection } from './tracking/tracking-connection.js';

/** Partitions of a cache on a Redis Cluster by default: a cluster of a few dozen primaries shares their load evenly. */
export const CLUSTER_PARTITIONS = 64;

export interface ClusterStoreOptions {
  /**
   * Number of partitions of the cache, 64 by default: the cache's generations and entries are spread over as many slots
   * of the cluster. 1 keeps the whole cache in one slot, on one primary. Another number makes another cache: no entry is
   * found any more. Processes with different numbers see each other's bumps if the source of each has an outbox, where they
   * register their numbers, or by `alsoPartitions`.
   */
  readonly partitions?: number;
  /**
   * Further numbers of partitions that bumps reach, for a cache without an outbox whose number changes. Three releases: the
   * new number here; then in `partitions`, with the old one here; then without it, once the longest TTL has passed.
   */
  readonly alsoPartitions?: readonly number[];
}

/**
 * A store on Redis 6.2 or later, for one cache.
 *
 * `redis` gives the address: the store connects at once on a `duplicate()` with its own settings, and leaves `redis`
 * itself alone. Each reconnection takes the options that `redis` has then, so a password or a certificate can be renewed:
 * `redis.options.password = token`. Behind Sentinels it also listens to each of them, and follows the primary that they
 * name. Of a Cluster client the store takes the nodes, `redisOptions` and `natMap`, and connects
 * to primaries alone, whatever `scaleReads` says.
 *
 * Throws ConfigurationError for a client with a keyPrefix, and for a client that reads from replicas.
 */
export function redisStore(redis: Redis): Store;
export function redisStore(cluster: Cluster, options?: ClusterStoreOptions): PartitionedStore;
export function redisStore(redis: Redis | Cluster, options: ClusterStoreOptions = {}): Store | PartitionedStore {
  if (isCluster(redis)) {
    const { partitions, alsoPartitions } = checkOptions(options);
    return new ClusterStore(new ClusterConnection(new ClusterClient(redis)), partitions, alsoPartitions);
  }
  checkClient(redis);
  const [option] = Object.keys(options ?? {});
  if (option !== undefined) {
    throw new ConfigurationError(
      `A Redis store without a Cluster must have no options, but got ${describe(option)}. Leave it out, or pass a Cluster client ` +
        'of ioredis.',
    );
  }
  const address = {
    get options() {
      return redis.options;
    },
    connect: (own: Partial<typeof redis.options>) => redis.duplicate(own),
  };
  return new RedisStore(new RedisConnection(address), new TrackingConnection(address));
}

/** All options: a misspelt number of partitions would make another cache, in silence. */
const OPTIONS: ReadonlySet<string> = new Set<keyof ClusterStoreOptions>(['partitions', 'alsoPartitions']);

function checkOptions(options: ClusterStoreOptions): Required<ClusterStoreOptions> {
  const unknown = Object.keys(options ?? {}).find((option) => !OPTIONS.has(option));
  if (options === null || typeof options !== 'object' || unknown !== undefined) {
    throw new ConfigurationError(
      `The options of a Redis store must be among ${[...OPTIONS].join(', ')}, but got ${describe(unknown ?? options)}. Correct the ` +
        'name, or leave the option out.',
    );
  }
  const { partitions = CLUSTER_PARTITIONS, alsoPartitions = [] } = options;
  if (!Array.isArray(alsoPartitions)) {
    throw new ConfigurationError(
      `alsoPartitions of a Redis store must be a list of numbers of partitions, but got ${describe(alsoPartitions)}. Write [8], or ` +
        'leave it out for no further number.',
    );
  }
  wholeNumber('partitions of a Redis store', partitions, 1, PARTITIONS_MAX, String(CLUSTER_PARTITIONS));
  for (const also of alsoPartitions)
    wholeNumber('Each of alsoPartitions of a Redis store', also, 1, PARTITIONS_MAX, 'no further number');
  return { partitions, alsoPartitions: [...alsoPartitions] };
}

function isCluster(redis: Redis | Cluster | undefined | null): redis is Cluster {
  return redis?.isCluster ?? false;
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

class RedisPartition implements StorePartition {
  readonly #connection: Route;
  readonly #pushes: PushSource;

  constructor(connection: Route, pushes: PushSource) {
    this.#connection = connection;
    this.#pushes = pushes;
  }

  get server(): object | undefined {
    return this.#connection.server;
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
    let replies: number | number[];
    try {
      replies = await this.#connection.send(deadline, (client) => client.gencacheBump(keys.length, args));
    } catch (error) {
      return this.#apart(error, deadline, keys, (key) => {
        const own = nonce();
        return (client) => client.gencacheBump(1, [key, own, ttlMs]).then((bumps) => bumped(bumps as number, own));
      });
    }
    return (typeof replies === 'number' ? [replies] : replies).map((bumps) => bumped(bumps, attempt));
  }

  /** Sends a command for each key alone if its keys' slot is being moved; throws any other error. */
  #apart<T>(
    error: unknown,
    deadline: Deadline,
    keys: readonly string[],
    one: Parameters<NonNullable<Route['sendApart']>>[2],
  ): Promise<T[]> {
    if (!(error instanceof MovingSlotError) || this.#connection.sendApart === undefined) throw error;
    return this.#connection.sendApart(deadline, keys, one) as Promise<T[]>;
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

  async quarantine(keys: readonly GenerationKey[], token: string, ttlMs: number, deadline: Deadline): Promise<number> {
    const args = [...keys, token, ttlMs];
    try {
      return await this.#connection.send(deadline, (client) => client.gencacheQuarantine(keys.length, args));
    } catch (error) {
      const held = await this.#apart<number>(
        error,
        deadline,
        keys,
        (key) => (client) => client.gencacheQuarantine(1, [key, token, ttlMs]),
      );
      return held.reduce((sum, one) => sum + one, 0);
    }
  }

  async lift(
    keys: readonly GenerationKey[],
    token: string,
    attempt: string,
    ttlMs: number,
    deadline: Deadline,
  ): ReturnType<Store['lift']> {
    const args = [...keys, token, attempt, ttlMs];
    let replies: string;
    try {
      replies = await this.#connection.send(deadline, (client) => client.gencacheLift(keys.length, args));
    } catch (error) {
      const each = await this.#apart<string>(
        error,
        deadline,
        keys,
        (key) => (client) => client.gencacheLift(1, [key, token, nonce(), ttlMs]),
      );
      replies = each.join('');
    }
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

  async freshness(key: FreshnessKey, deadline: Deadline): Promise<FreshnessReading> {
    const [value, ttlMs] = await this.#connection.sendUnlessDown(deadline, (client) =>
      client.gencacheFreshnessBuffer(1, [key]),
    );
    return { value, ttlMs };
  }

  readMark(markKey: MarkKey, deadline: Deadline): Promise<string | null> {
    return this.#connection.send(deadline, (client) => client.get(markKey));
  }

  track(options: TrackingOptions, listener: TrackingListener): Tracking {
    return new PartitionTracker(this.#connection, this.#pushes, options, listener);
  }
}

/** A connection, or several, of one cache. */
interface Connection {
  listen(listener: StoreListener): void;
  close(): void;
}

/** Lets one cache listen to a connection. */
class Lifecycle implements StoreLifecycle {
  readonly name = 'redis';
  readonly #connection: Connection;
  #listening = false;

  constructor(connection: Connection) {
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

  async close(): Promise<void> {
    this.#connection.close();
  }
}

class RedisStore extends RedisPartition implements Store {
  readonly #lifecycle: Lifecycle;

  readonly #tracking: TrackingConnection;

  constructor(connection: RedisConnection, tracking: TrackingConnection) {
    super(connection, { trackingConnection: () => tracking });
    this.#tracking = tracking;
    this.#lifecycle = new Lifecycle(connection);
  }

  get name(): string {
    return this.#lifecycle.name;
  }

  listen(listener: StoreListener): void {
    this.#lifecycle.listen(listener);
  }

  close(): Promise<void> {
    this.#tracking.close();
    return this.#lifecycle.close();
  }
}

class ClusterStore extends Lifecycle implements PartitionedStore {
  readonly partitions: number;
  readonly alsoPartitions: readonly number[];
  readonly #cluster: ClusterConnection;

  constructor(cluster: ClusterConnection, partitions: number, alsoPartitions: readonly number[]) {
    super(cluster);
    this.#cluster = cluster;
    this.partitions = partitions;
    this.alsoPartitions = alsoPartitions;
  }

  get unreachable(): readonly string[] {
    return this.#cluster.unreachable;
  }

  partition(prefix: string): StorePartition {
    const route = this.#cluster.route(slotOf(prefix));
    return new RedisPartition(route, route);
  }
}

function bumped(bumps: number, attempt: string): Generation | 'missing' | 'foreign' | 'quarantined' {
  return bumps >= 0 ? formatGeneration(bumps, attempt) : UNBUMPED[bumps as keyof typeof UNBUMPED];
}

function checkClient(redis: Redis): void {
  if (typeof redis?.duplicate !== 'function' || redis.options === undefined) {
    throw new ConfigurationError(
      `The client of a Redis store must be an ioredis client, but got ${describe(redis)}. Pass \`new Redis(url)\` of ioredis.`,
    );
  }
  const { keyPrefix, readOnly, role, preferredSlaves } = redis.options;
  if (keyPrefix) {
    throw new ConfigurationError(
      `The client of a Redis store must have no keyPrefix, but got ${describe(keyPrefix)}. Put the prefix into the ` +
        "cache's name, with which every key starts.",
    );
  }
  if (readOnly || role === 'slave' || preferredSlaves) {
    const option = readOnly ? 'readOnly: true' : role === 'slave' ? "role: 'slave'" : 'preferredSlaves';
    throw new ConfigurationError(
      'The client of a Redis store must read from a primary, since a replica may lag behind and show old generations, ' +
        `but got one with ${option}. Pass a client of the primary.`,
    );
  }
}
