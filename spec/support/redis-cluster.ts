import { setTimeout as sleep } from 'node:timers/promises';
import { Cluster, Redis } from 'ioredis';
import { slotOf, SLOTS } from '../../lib/store/redis/cluster/slot.js';
import { lend, type Lifetime } from './lenders.js';
import { type Proxy, startProxy } from './proxy.js';
import { type RedisServer, startRedis } from './servers/redis-server.js';

const FORMED_MS = 60_000;

export interface RedisClusterOptions {
  readonly primaries?: number;
  /** Replicas of each primary. */
  readonly replicas?: number;
  /** Further arguments of each redis-server. */
  readonly args?: readonly string[];
}

export interface PrivateRedisClusterOptions extends RedisClusterOptions {
  /** Whether the bus can be cut (`RedisCluster.cutBus`). No node is restarted then: it would forget the way. */
  readonly hasProxies?: boolean;
  readonly for?: Lifetime;
}

/** What each node adds to its port for its end of the bus. */
const BUS_OFFSET = 10_000;
/** Where a message of the bus has the id of the node that sends it. */
const SENDER = { start: 40, end: 80 };

/** A node of a private Redis Cluster. */
export class RedisNode {
  readonly server: RedisServer;
  /** Before its end of the bus, if the bus can be cut. */
  bus: Proxy | undefined;
  /** A connection for the spec's own commands. */
  readonly admin: Redis;
  id = '';

  constructor(server: RedisServer) {
    this.server = server;
    this.admin = new Redis(server.url, { retryStrategy: () => 50, maxRetriesPerRequest: null });
    this.admin.on('error', () => {});
  }

  get port(): number {
    return this.server.port;
  }

  get busPort(): number {
    return this.bus?.port ?? this.port + BUS_OFFSET;
  }

  /** Puts a proxy before its end of the bus. */
  async takeProxy(lifetime: Lifetime | undefined): Promise<void> {
    this.bus = await startProxy(this.port + BUS_OFFSET, lifetime && { for: lifetime });
    await this.admin.config('SET', 'cluster-announce-bus-port', this.bus.port);
  }

  async role(): Promise<'master' | 'slave'> {
    return ((await this.admin.role()) as ['master' | 'slave'])[0];
  }

  cluster(...args: (string | number)[]): Promise<unknown> {
    return this.admin.call('CLUSTER', ...args);
  }

  async knowsState(state: 'ok' | 'fail'): Promise<boolean> {
    return String(await this.cluster('INFO')).includes(`cluster_state:${state}`);
  }
}

/** Three primaries with a replica each, by default, on 127.0.0.1: a spec may kill, move and reset as it likes. */
export class RedisCluster {
  readonly nodes: readonly RedisNode[];
  readonly primaries: readonly RedisNode[];
  readonly replicas: readonly RedisNode[];

  constructor(nodes: readonly RedisNode[], primaries: number) {
    this.nodes = nodes;
    this.primaries = nodes.slice(0, primaries);
    this.replicas = nodes.slice(primaries);
  }

  /** A user's client, with one node that it knows; not connected, since the store makes connections of its own. */
  client(options: NonNullable<ConstructorParameters<typeof Cluster>[1]> = {}, node = this.nodes[0]!): Cluster {
    const client = new Cluster([{ host: '127.0.0.1', port: node.port }], { lazyConnect: true, ...options });
    client.on('error', () => {});
    lend({ what: 'the Cluster client', close: () => client.disconnect() }, 'spec');
    return client;
  }

  /** The node that owns the slot of a key, as the nodes that can be asked agree. */
  async owner(key: string): Promise<RedisNode> {
    const slot = slotOf(key);
    for (const node of this.nodes) {
      const ranges = (await node.cluster('SLOTS').catch(() => [])) as [number, number, [string, number, string]][];
      const range = ranges.find(([first, last]) => first <= slot && slot <= last);
      if (range !== undefined) return this.nodes.find(({ port }) => port === range[2][1])!;
    }
    throw new Error(`No node owns the slot of ${key}.`);
  }

  /** The other node of a primary and its replica, whichever of the two is which by now. */
  partnerOf(node: RedisNode): RedisNode {
    const at = this.primaries.indexOf(node);
    return at === -1 ? this.primaries[this.replicas.indexOf(node)]! : this.replicas[at]!;
  }

  /**
   * Makes a replica the primary. The others refuse their vote if they gave one for these slots a moment ago, so it is asked
   * for again.
   */
  async failover(to: RedisNode, ...how: ('FORCE' | 'TAKEOVER')[]): Promise<void> {
    let askedMs = -Infinity;
    await waitUntil(async () => {
      if ((await to.role()) === 'master') return true;
      if (performance.now() - askedMs > 1_500) {
        askedMs = performance.now();
        await to.cluster('FAILOVER', ...how).catch(() => {});
      }
      return false;
    }, 'The replica was not promoted');
    await this.formed();
  }

  /** Cuts the bus between these groups of nodes, and between them and all others. Without groups, mends it. */
  cutBus(...groups: readonly RedisNode[][]): void {
    const groupOf = (node: RedisNode) => groups.findIndex((group) => group.includes(node));
    for (const node of this.nodes) {
      node.bus!.admits = (first) => {
        const id = first.toString('latin1', SENDER.start, SENDER.end);
        const sender = this.nodes.find((other) => other.id === id)!;
        return groupOf(sender) === groupOf(node);
      };
    }
    for (const { bus } of this.nodes) bus!.cut();
  }

  /** Steps of moving the slot of a key from its owner to another primary. */
  async reshard(key: string, target?: RedisNode): Promise<Resharding> {
    const source = await this.owner(key);
    let to = target;
    for (const node of this.nodes) {
      if (to === undefined && node !== source && (await node.role()) === 'master') to = node;
    }
    if (to === undefined) throw new Error('A slot needs another primary to go to.');
    return new Resharding(this, slotOf(key), source, to);
  }

  /** Resolves when each node sees the cluster serve, all agree on the owners, and each replica follows its primary. */
  async formed(): Promise<void> {
    await waitUntil(async () => {
      const views = await Promise.all(this.nodes.map(ownersSeenBy));
      if (new Set(views).size !== 1) return false;
      for (const node of this.nodes) {
        if (!(await node.knowsState('ok'))) return false;
        const links = String(await node.cluster('NODES'))
          .split('\n')
          .filter(Boolean);
        if (links.length !== this.nodes.length || links.some((line) => /handshake|disconnected/.test(line)))
          return false;
        if ((await node.role()) === 'slave' && !(await node.admin.info('replication')).includes('link_status:up'))
          return false;
      }
      return true;
    }, 'The Redis Cluster has not formed');
  }

  async stop(options?: { keep?: boolean }): Promise<void> {
    for (const { admin } of this.nodes) admin.disconnect();
    await Promise.all(this.nodes.map(({ server }) => server.stop(options)));
  }
}

/** CLUSTER SETSLOT and MIGRATE, step by step: the states of a slot on its way. */
export class Resharding {
  readonly #cluster: RedisCluster;
  readonly slot: number;
  readonly source: RedisNode;
  readonly target: RedisNode;

  constructor(cluster: RedisCluster, slot: number, source: RedisNode, target: RedisNode) {
    this.#cluster = cluster;
    this.slot = slot;
    this.source = source;
    this.target = target;
  }

  async begin(): Promise<void> {
    await this.target.cluster('SETSLOT', this.slot, 'IMPORTING', this.source.id);
    await this.source.cluster('SETSLOT', this.slot, 'MIGRATING', this.target.id);
  }

  async keys(): Promise<string[]> {
    return (await this.source.cluster('GETKEYSINSLOT', this.slot, 10_000)) as string[];
  }

  async move(...keys: string[]): Promise<void> {
    if (keys.length === 0) return;
    await this.source.admin.call('MIGRATE', '127.0.0.1', this.target.port, '', 0, 5_000, 'KEYS', ...keys);
  }

  /** Moves all keys that are left. */
  async rest(): Promise<void> {
    for (let keys = await this.keys(); keys.length > 0; keys = await this.keys()) await this.move(...keys);
  }

  /** Ends the move. The owner's change is told to the other nodes one by one, as redis-cli does. */
  async end(): Promise<void> {
    await this.target.cluster('SETSLOT', this.slot, 'NODE', this.target.id);
    await this.source.cluster('SETSLOT', this.slot, 'NODE', this.target.id);
  }

  /** All steps. */
  async all(): Promise<void> {
    await this.begin();
    await this.rest();
    await this.end();
    await this.#cluster.formed();
  }
}

export async function privateRedisCluster({
  for: lifetime,
  hasProxies = false,
  ...options
}: PrivateRedisClusterOptions = {}): Promise<RedisCluster> {
  const cluster = await startRedisCluster(options, async ({ nodes }) => {
    if (hasProxies) await Promise.all(nodes.map((node) => node.takeProxy(lifetime)));
  });
  lend({ what: 'the private Redis Cluster', close: (ending) => cluster.stop(ending) }, lifetime);
  return cluster;
}

/** Starts a cluster, whose caller stops it. Resolves when it has formed. `prepare`: called before the nodes meet. */
export async function startRedisCluster(
  options: RedisClusterOptions = {},
  prepare: (cluster: RedisCluster) => Promise<void> = async () => {},
): Promise<RedisCluster> {
  const { primaries = 3, replicas = 1, args = [] } = options;
  const count = primaries * (1 + replicas);
  const servers = await Promise.all(
    Array.from({ length: count }, () =>
      startRedis({
        args: [
          ...['--cluster-enabled', 'yes', '--cluster-node-timeout', '1500', '--cluster-require-full-coverage', 'no'],
          ...['--repl-diskless-sync-delay', '0', '--enable-debug-command', 'yes', ...args],
        ],
      }),
    ),
  );
  const cluster = new RedisCluster(
    servers.map((server) => new RedisNode(server)),
    primaries,
  );
  try {
    await prepare(cluster);
    await form(cluster);
    return cluster;
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}

async function form(cluster: RedisCluster): Promise<void> {
  const { nodes, primaries } = cluster;
  const share = SLOTS / primaries.length;
  await Promise.all(
    nodes.map(async (node, i) => {
      node.id = String(await node.cluster('MYID'));
      await node.cluster('SET-CONFIG-EPOCH', i + 1);
      if (i >= primaries.length) return;
      const slots = Array.from({ length: SLOTS }, (_, slot) => slot);
      await node.cluster('ADDSLOTS', ...slots.slice(Math.ceil(i * share), Math.ceil((i + 1) * share)));
    }),
  );
  for (const node of nodes.slice(1)) await node.cluster('MEET', '127.0.0.1', nodes[0]!.port, nodes[0]!.busPort);
  for (const [i, replica] of cluster.replicas.entries()) {
    const primary = primaries[i % primaries.length]!;
    await waitUntil(async () => {
      const known = await replica.cluster('REPLICATE', primary.id).catch(() => 'unknown');
      return known === 'OK';
    }, 'A replica does not know its primary');
  }
  await cluster.formed();
}

async function ownersSeenBy(node: RedisNode): Promise<string> {
  const ranges = (await node.cluster('SLOTS')) as [number, number, [string, number]][];
  return ranges
    .map(([first, last, [, port]]) => `${first}-${last} ${port}`)
    .toSorted()
    .join();
}

export async function waitUntil(isSo: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + FORMED_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`${what} within ${FORMED_MS} ms.`);
    await sleep(20);
  }
}
