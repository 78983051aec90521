import { type Cluster, Redis, type RedisOptions } from 'ioredis';
import { describe } from '../../../errors/describe.js';
import { ConfigurationError } from '../../../errors/errors.js';
import type { ServerAddress } from '../redis-connection.js';
import type { NodeAddress } from './redirection.js';

type StartupNode = string | number | { readonly host?: string; readonly port?: number };

/**
 * What the store takes from an ioredis Cluster client: where its nodes are, and what to connect to them with. The client
 * itself stays as it is, connected or not.
 */
export class ClusterClient {
  readonly #cluster: Cluster;

  /** Throws ConfigurationError. */
  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    const { keyPrefix, useSRVRecords, redisOptions } = cluster.options;
    const prefix = keyPrefix || redisOptions?.keyPrefix;
    if (prefix) {
      throw new ConfigurationError(
        `The client of a Redis store must have no keyPrefix, but got ${describe(prefix)}. Put the prefix into the ` +
          "cache's name, with which every key starts.",
      );
    }
    if (useSRVRecords) {
      throw new ConfigurationError(
        'The Cluster client of a Redis store must name nodes by host and port, but got one with useSRVRecords: true. ' +
          'Pass the host and port of one node or more.',
      );
    }
    if (this.startupNodes.length === 0) {
      throw new ConfigurationError(
        'The Cluster client of a Redis store must name one node at least, but got none. Pass the host and port of a node.',
      );
    }
  }

  /** The nodes that the owner named. */
  get startupNodes(): ServerAddress[] {
    return this.#named.map((node) => this.#reached(() => optionsOf(node)));
  }

  get #named(): readonly StartupNode[] {
    // ioredis has no public way to them; 5.4 to 6.0 name them so.
    return (this.#cluster as unknown as { startupNodes?: readonly StartupNode[] }).startupNodes ?? [];
  }

  get usesTls(): boolean {
    return this.startupNodes.some(({ options }) => options.tls !== undefined);
  }

  /** The key of an address, and the way to it: an address of the owner's `natMap` in place of one of the cluster's own. */
  reach({ host, port }: NodeAddress): { key: string; address: ServerAddress } {
    const key = `${host}:${port}`;
    const { natMap } = this.#cluster.options;
    const mapped = typeof natMap === 'function' ? natMap(key) : natMap?.[key];
    const { host: mappedHost = host, port: mappedPort = port } = mapped ?? {};
    return {
      key: `${mappedHost}:${mappedPort}`,
      address: this.#reached(() => ({ host: mappedHost, port: mappedPort })),
    };
  }

  #reached(target: () => RedisOptions): ServerAddress {
    const current = (): RedisOptions => ({
      // A node's URL says that there is TLS, `redisOptions` what it is made with; and all nodes of a cluster have it.
      ...(this.#named.some(isByTls) && { tls: {} }),
      ...this.#cluster.options.redisOptions,
      ...target(),
    });
    return {
      get options() {
        return current();
      },
      connect: (own) => new Redis(Object.assign(current(), own) as RedisOptions & { replyMapping?: 'legacy' }),
    };
  }
}

/** A node's options, in the forms that ioredis takes. Only ioredis knows all forms of its URLs. */
function optionsOf(node: StartupNode): RedisOptions {
  if (typeof node === 'number') return { host: '127.0.0.1', port: node };
  if (typeof node === 'object') return { host: '127.0.0.1', port: 6379, ...node } as RedisOptions;
  const { host, port, username, password } = new Redis(node, { lazyConnect: true }).options;
  return { host, port, ...(username && { username }), ...(password && { password }) } as RedisOptions;
}

function isByTls(node: StartupNode): boolean {
  return typeof node === 'string' && node.startsWith('rediss://');
}
