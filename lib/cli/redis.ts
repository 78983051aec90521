import { readFileSync } from 'node:fs';
import { Cluster, Redis, type RedisOptions } from 'ioredis';
import { describe } from '../errors/describe.js';
import { PARTITIONS_MAX } from '../model/key.js';
import type { Arguments } from './arguments.js';
import type { ServerAddress } from './redact.js';
import { serverUrl } from './server-url.js';
import type { Terminal } from './terminal.js';
import { UsageError } from './usage-error.js';

/** A client that is not connected: `redisStore` makes connections of its own. `partitions`: undefined for the default. */
export type RedisTemplate = { readonly redis: Redis } | { readonly cluster: Cluster; readonly partitions?: number };

type Tls = NonNullable<RedisOptions['tls']>;

/**
 * The address of Redis in one of these forms, as other tools spell them:
 *
 *     redis://[user:password@]host[:6379][/db]                                  one server, as ioredis takes it
 *     redis+sentinel://[user:password@]host[:26379][,host...]/name[/db]         Sentinels, and the name of the primary
 *     redis+cluster://[user:password@]host[:6379][,host...]                     nodes of a Cluster
 *
 * `rediss` in place of `redis` is TLS, to Sentinels too. `?sentinel_username=` and `?sentinel_password=` are for the
 * Sentinels. Throws UsageError.
 */
export function redisTemplate(args: Arguments, terminal: Terminal): RedisTemplate {
  const url = serverUrl(args, terminal, {
    option: 'redis',
    variable: 'REDIS_URL',
    // The last one is the path of a socket.
    beginnings: ['redis://', 'rediss://', ...SETS, '/'],
    secretsOf: (address) => secretsOf(address),
  });
  const files = tlsFiles(args, url);
  const partitions = args.number('partitions', { least: 1, most: PARTITIONS_MAX });
  const set = parseSet(url);
  if (set?.kind === 'cluster') {
    const { username, password, nodes } = set;
    const tls = set.isTls && { tls: files ?? {} };
    const cluster = new Cluster(
      nodes.map((node) => ({ port: 6_379, ...node })),
      { lazyConnect: true, redisOptions: { ...(username && { username }), ...(password && { password }), ...tls } },
    );
    return { cluster, ...(partitions !== undefined && { partitions }) };
  }
  if (partitions !== undefined) {
    throw new UsageError(
      '--partitions is for a Redis Cluster, but the address of Redis names none. Leave it out, or begin the address with ' +
        'redis+cluster://.',
    );
  }
  if (set === undefined) return { redis: new Redis(url, { lazyConnect: true, ...(files && { tls: files }) }) };
  return { redis: new Redis({ ...sentinelOptions(set, files), lazyConnect: true }) };
}

export function usesTls(template: RedisTemplate): boolean {
  return 'redis' in template ? !!template.redis.options.tls : !!template.cluster.options.redisOptions?.tls;
}

const SETS = ['redis+sentinel://', 'rediss+sentinel://', 'redis+cluster://', 'rediss+cluster://'] as const;
const SET = /^(rediss?)\+(sentinel|cluster):\/\/(.*@)?([^/?@]*)([/?].*)?$/;

/** Several servers in one address. */
interface ServerSet {
  readonly kind: 'sentinel' | 'cluster';
  readonly isTls: boolean;
  readonly username: string;
  readonly password: string;
  readonly nodes: readonly { readonly host: string; readonly port?: number }[];
  /** The parts of its path. */
  readonly path: readonly string[];
  readonly sentinelUsername: string | undefined;
  readonly sentinelPassword: string | undefined;
}

/** Undefined for an address of one server. Throws UsageError for a set that is not complete, else as `URL` does. */
function parseSet(address: string): ServerSet | undefined {
  const [, scheme, kind, credentials = '', hosts, rest = ''] = SET.exec(address) ?? [];
  if (scheme === undefined || hosts === undefined) return undefined;
  const nodes = hosts.split(',').map((node, index) => {
    if (node === '' || node.startsWith(':')) {
      throw new UsageError(
        `The address of ${kind === 'cluster' ? 'a Redis Cluster' : 'Sentinels'} must have a host in each part between commas, but ` +
          `part ${1 + index} has none. Write host or host:port, and check the variables that the address is made of.`,
      );
    }
    const { hostname, port } = new URL(`redis://${node}`);
    return { host: hostname.replace(/^\[(.*)\]$/, '$1'), ...(port && { port: Number(port) }) };
  });
  const { username, password, pathname, searchParams } = new URL(`redis://${credentials}host${rest}`);
  const {
    sentinel_username: sentinelUsername,
    sentinel_password: sentinelPassword,
    ...others
  } = Object.fromEntries(searchParams) as Record<string, string | undefined>;
  const set: ServerSet = {
    ...{ kind: kind as ServerSet['kind'], isTls: scheme === 'rediss', nodes, sentinelUsername, sentinelPassword },
    ...{ username: decodeURIComponent(username), password: decodeURIComponent(password) },
    path: pathname.split('/').filter(Boolean).map(decodeURIComponent),
  };
  checkSet(set, Object.keys(others));
  return set;
}

function checkSet({ kind, path, sentinelUsername, sentinelPassword }: ServerSet, others: readonly string[]): void {
  const [unknown] = [
    ...others,
    ...(kind === 'cluster' && sentinelUsername !== undefined ? ['sentinel_username'] : []),
    ...(kind === 'cluster' && sentinelPassword !== undefined ? ['sentinel_password'] : []),
  ];
  if (unknown !== undefined) {
    throw new UsageError(
      `The address of Redis may have the parameters sentinel_username and sentinel_password, for Sentinels, but got ${describe(unknown)}. ` +
        'Remove it.',
    );
  }
  if (kind === 'cluster' && path.length > 0) {
    throw new UsageError(
      `The address of a Redis Cluster must end after its nodes, but got ${describe(`/${path.join('/')}`)}. A Cluster has database 0 alone.`,
    );
  }
  const [name, db = '0', ...further] = path;
  if (kind === 'sentinel' && (name === undefined || !/^\d{1,5}$/.test(db) || further.length > 0)) {
    throw new UsageError(
      `The address of Sentinels must end with the name that they have for the primary, and may have a database after it ` +
        `(/mymaster, /mymaster/0), but got ${describe(`/${path.join('/')}`)}. SENTINEL MASTERS lists the names.`,
    );
  }
}

function sentinelOptions(
  { path, nodes, isTls, username, password, sentinelUsername, sentinelPassword }: ServerSet,
  files: Tls | undefined,
) {
  const [name, db = '0'] = path;
  const tls = files ?? {};
  return {
    ...{ sentinels: [...nodes], name: name!, db: Number(db) },
    ...(username && { username }),
    ...(password && { password }),
    ...(sentinelUsername && { sentinelUsername }),
    ...(sentinelPassword && { sentinelPassword }),
    ...(isTls && { tls, sentinelTLS: tls, enableTLSForSentinelMode: true }),
  };
}

/** Every password of an address, with an address of one server in which it stands. Throws where a driver would. */
function secretsOf(address: string): ServerAddress[] {
  const set = parseSet(address);
  if (set === undefined)
    return [{ address, password: new Redis(address, { lazyConnect: true }).options.password ?? undefined }];
  const [node] = set.nodes;
  const at = (password: string) => ({ address: `redis://:${encodeURIComponent(password)}@${node!.host}`, password });
  return [set.password, set.sentinelPassword ?? ''].filter(Boolean).map(at);
}

/** What TLS is made with, named as redis-cli names its options; undefined to leave it to the address. */
function tlsFiles(args: Arguments, url: string): Tls | undefined {
  const named = (['cacert', 'cert', 'key'] as const).map((file) => [file, args.text(`redis-${file}`)] as const);
  const given = named.filter(([, path]) => path !== undefined);
  if (given.length === 0) return undefined;
  if (!url.startsWith('rediss')) {
    throw new UsageError(
      `--redis-${given[0]![0]} is for TLS, but the address of Redis names none. Begin it with rediss in place of redis.`,
    );
  }
  const [ca, cert, key] = named.map(([file, path]) => (path === undefined ? undefined : readText(file, path)));
  if ((cert === undefined) !== (key === undefined)) {
    throw new UsageError('--redis-cert and --redis-key must come together, but one is missing. Add it.');
  }
  return { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) };
}

function readText(file: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new UsageError(`--redis-${file} names a file that can't be read: ${path} (${code}). Correct the path.`);
  }
}
