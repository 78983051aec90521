/** What a connection needs to know of its server, as INFO tells it. */
export interface ServerInfo {
  readonly role?: string | undefined;
  readonly run_id?: string | undefined;
  readonly master_replid?: string | undefined;
  readonly maxmemory?: string | undefined;
  readonly maxmemory_policy?: string | undefined;
}

export function parseInfo(reply: string): ServerInfo {
  return Object.fromEntries(
    reply.split('\r\n').map((line) => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon), line.slice(colon + 1)];
    }),
  );
}

/** Who this server is: another run of it, or another history of its data, has another one. undefined if it won't say. */
export function incarnationOf({ run_id, master_replid }: ServerInfo): string | undefined {
  return run_id && master_replid ? `${run_id}.${master_replid}` : undefined;
}

/** What an owner should know of this server, once, at start-up: what its memory policy costs. */
export function describeInfo(info: ServerInfo): string[] {
  return [...describeMemory(info), ...(incarnationOf(info) ? [] : [UNKNOWN_INCARNATION])];
}

const UNKNOWN_INCARNATION =
  'A cache with maxStalenessMs must know whether Redis went back in time, by INFO (run_id, master_replid). This user or ' +
  'server does not tell: such a cache reads the source. Let the user run INFO, also inside scripts.';

function describeMemory({ maxmemory, maxmemory_policy: policy }: ServerInfo): string[] {
  if (policy === undefined)
    return ['Redis does not let this user see INFO: its role and eviction policy are unchecked.'];
  if (maxmemory === '0')
    return ['Redis has no maxmemory: orphans and entries stay until their TTL, and nothing is evicted.'];
  if (policy === 'noeviction') {
    return ['Redis has the policy noeviction: when its memory is full, fills are refused and misses go to the source.'];
  }
  return [
    `Redis has the policy ${policy}: when its memory is full it evicts entries and generations. Either costs misses; ` +
      'an evicted generation costs those of everything below it. A strict commit whose quarantine is evicted is a plain ' +
      'one: strict commits want noeviction.',
  ];
}
