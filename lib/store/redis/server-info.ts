/** The fields of INFO that a connection needs. */
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

/** `<run_id>.<master_replid>`: changes with each start of the server and each new history of its data. undefined if INFO is forbidden. */
export function incarnationOf({ run_id, master_replid }: ServerInfo): string | undefined {
  return run_id && master_replid ? `${run_id}.${master_replid}` : undefined;
}

/** Warnings for the owner, once, at start-up: the cost of the server's memory policy, and an unknown incarnation. */
export function describeInfo(info: ServerInfo): string[] {
  return [...describeMemory(info), ...(incarnationOf(info) ? [] : [UNKNOWN_INCARNATION])];
}

const UNKNOWN_INCARNATION =
  'Redis did not tell its run_id and master_replid, by which a cache with maxStalenessMs notices that Redis went back in ' +
  'time. Such a cache reads the source. Let the user run INFO, also inside scripts.';

function describeMemory({ maxmemory, maxmemory_policy: policy }: ServerInfo): string[] {
  if (policy === undefined)
    return ['Redis forbids INFO to this user: its role and its eviction policy are unchecked. Let the user run INFO.'];
  if (maxmemory === '0')
    return ['Redis has no maxmemory: entries and orphans stay until their TTL, and Redis evicts nothing.'];
  if (policy === 'noeviction') {
    return ['Redis has the policy noeviction: a full Redis refuses fills, and misses go to the source.'];
  }
  return [
    `Redis has the policy ${policy}: a full Redis evicts entries and generations. An evicted entry costs a miss, an ` +
      'evicted generation a miss for each entry below it, an evicted quarantine the strictness of its commit. Strict ' +
      'commits need noeviction.',
  ];
}
