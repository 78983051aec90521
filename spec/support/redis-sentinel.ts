import { Redis, type RedisOptions } from 'ioredis';
import type { Lifetime } from './lenders.js';
import { waitUntil } from './redis-cluster.js';
import { privateRedis } from './redis.js';
import type { RedisServer } from './servers/redis-server.js';

const NAME = 'main';
const SENTINELS = 3;

export interface RedisSentinelsOptions {
  readonly replicas?: number;
  /** Further arguments of each redis-server, and further settings of each Sentinel. */
  readonly args?: readonly string[];
  readonly settings?: readonly string[];
  readonly for?: Lifetime;
}

/** A private primary with replicas, and three Sentinels that agree on them. */
export class RedisSentinels {
  readonly servers: readonly RedisServer[];
  readonly sentinels: readonly RedisServer[];
  readonly name = NAME;

  constructor(servers: readonly RedisServer[], sentinels: readonly RedisServer[]) {
    this.servers = servers;
    this.sentinels = sentinels;
  }

  /** What a client of the primary is made with. */
  get options(): RedisOptions & { readonly sentinels: { host: string; port: number }[] } {
    return { sentinels: this.sentinels.map(({ host, port }) => ({ host, port })), name: this.name };
  }

  /** For the command line. */
  get url(): string {
    return `redis+sentinel://${this.sentinels.map(({ host, port }) => `${host}:${port}`).join()}/${this.name}`;
  }

  /** The primary as a Sentinel names it. */
  async primary(sentinel = this.sentinels[0]!): Promise<RedisServer> {
    const [, port] = (await ask(sentinel, 'SENTINEL', 'get-master-addr-by-name', NAME)) as [string, string];
    return this.servers.find((server) => server.port === Number(port))!;
  }

  /** SENTINEL FAILOVER. Resolves once each Sentinel names the new primary: the former one does not know yet. */
  async failover(): Promise<RedisServer> {
    const former = await this.primary();
    await ask(this.sentinels[0]!, 'SENTINEL', 'failover', NAME);
    return this.successorOf(former);
  }

  /** Resolves once each Sentinel that runs names another primary than this one. */
  async successorOf(former: RedisServer): Promise<RedisServer> {
    const others = async () => {
      const named = await Promise.all(this.sentinels.map((one) => this.primary(one).catch(() => undefined)));
      return named.filter((server) => server !== undefined);
    };
    await waitUntil(
      async () => (await others()).every((server) => server !== former) && (await others()).length > 0,
      'The Sentinels have named no other primary',
    );
    return (await others())[0]!;
  }

  /** Resolves when each Sentinel knows all others and all replicas, and each replica follows the primary. */
  async formed(): Promise<void> {
    await waitUntil(async () => {
      for (const sentinel of this.sentinels) {
        const info = String(await ask(sentinel, 'INFO', 'sentinel'));
        if (!info.includes(`status=ok`) || !info.includes(`slaves=${this.servers.length - 1},sentinels=${SENTINELS}`))
          return false;
      }
      return true;
    }, 'The Sentinels have not found each other');
  }
}

export async function privateRedisSentinels(options: RedisSentinelsOptions = {}): Promise<RedisSentinels> {
  const { replicas = 2, args = [], settings = [], for: lifetime } = options;
  const lifetimeOf = lifetime === undefined ? {} : { for: lifetime };
  const all = ['--repl-diskless-sync-delay', '0', ...args];
  const primary = await privateRedis({ args: all, ...lifetimeOf });
  const servers = [
    primary,
    ...(await Promise.all(
      Array.from({ length: replicas }, () =>
        privateRedis({ args: [...all, '--replicaof', primary.host, String(primary.port)], ...lifetimeOf }),
      ),
    )),
  ];
  // A Sentinel looks for replicas at once, and then each ten seconds.
  await waitUntil(async () => {
    const info = String(await ask(primary, 'INFO', 'replication'));
    return (info.match(/state=online/g) ?? []).length === replicas;
  }, 'The replicas do not follow');
  const config = [
    `sentinel monitor ${NAME} ${primary.host} ${primary.port} 2`,
    `sentinel down-after-milliseconds ${NAME} 500`,
    `sentinel failover-timeout ${NAME} 2000`,
    ...settings,
    '',
  ].join('\n');
  const sentinels = await Promise.all(
    Array.from({ length: SENTINELS }, () => privateRedis({ args: ['--sentinel'], config, ...lifetimeOf })),
  );
  const set = new RedisSentinels(servers, sentinels);
  await set.formed();
  return set;
}

async function ask(server: RedisServer, command: string, ...args: string[]): Promise<unknown> {
  const client = new Redis(server.url, {
    ...{ lazyConnect: true, retryStrategy: () => null, connectTimeout: 1_000, commandTimeout: 2_000 },
    enableReadyCheck: false,
  });
  client.on('error', () => {});
  try {
    await client.connect();
    return await client.call(command, ...args);
  } finally {
    client.disconnect();
  }
}
