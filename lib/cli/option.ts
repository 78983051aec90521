/** One option of a command. */
export interface CommandOption {
  /** The name of its value in the help; a flag has none. */
  readonly value?: string;
  readonly multiple?: boolean;
  readonly help: string;
}

export type CommandOptions = Readonly<Record<string, CommandOption>>;

export const CACHE_OPTION: CommandOption = { value: 'NAME', help: 'the `name` of the GenerationalCache' };
export const CACHE_FILTER: CommandOption = { ...CACHE_OPTION, help: 'limits the output to this cache' };
export const JSON_OPTION: CommandOption = { help: 'prints JSON, for programs' };

export const DATABASE_OPTIONS: CommandOptions = {
  database: { value: 'URL', help: 'address of PostgreSQL; default: DATABASE_URL, which process lists do not show' },
  schema: { value: 'NAME', help: "schema of the outbox; default: the connection's search path" },
};

export const REDIS_OPTIONS: CommandOptions = {
  redis: {
    value: 'URL',
    help: 'address of Redis (redis://, redis+sentinel://, redis+cluster://); default: REDIS_URL, which process lists do not show',
  },
  partitions: { value: 'N', help: 'on a Redis Cluster, the `partitions` of the store of the cache; default: 64' },
  'redis-cacert': { value: 'FILE', help: 'for rediss://, the CA that signed the certificate of Redis' },
  'redis-cert': { value: 'FILE', help: 'for rediss://, a certificate to show to Redis' },
  'redis-key': { value: 'FILE', help: 'for rediss://, the key of that certificate' },
};
