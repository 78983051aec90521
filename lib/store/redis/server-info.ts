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

/** Whether the server is known to be no primary. Redis calls a replica a slave, Dragonfly and others a replica. */
export function isReplica({ role }: ServerInfo): boolean {
  return role !== undefined && role !== 'master';
}

/** Warnings for the owner, once, at start-up: what the server does not tell, and what its memory policy costs. */
export function describeInfo(info: ServerInfo, refusal?: Error): string[] {
  const memory = describeMemory(info);
  return [
    ...(refusal === undefined ? describeUntold(info) : [describeRefusal(refusal)]),
    ...(memory === undefined ? [] : [memory]),
    ...(incarnationOf(info) === undefined ? [UNKNOWN_INCARNATION] : []),
  ];
}

const UNKNOWN_INCARNATION =
  'Redis did not tell its run_id and master_replid, by which relays and caches with maxStalenessMs notice that Redis went ' +
  'back in time. No relay bumps there, and such a cache reads the source; steps 0 and 1 need neither. Let the user run ' +
  'INFO, also inside scripts.';

const CONNECT_TO_PRIMARY = 'Connect to the primary: a replica has old generations.';

function describeRefusal({ message }: Error): string {
  return `Redis refuses INFO (${message}): its role and its eviction policy are unchecked. ${CONNECT_TO_PRIMARY}`;
}

function describeUntold({ role, maxmemory_policy: policy }: ServerInfo): string[] {
  return [
    ...(role === undefined ? [`Redis did not tell whether it is a primary. ${CONNECT_TO_PRIMARY}`] : []),
    ...(policy === undefined ? ['Redis did not tell its eviction policy: what a full Redis costs is unchecked.'] : []),
  ];
}

function describeMemory({ maxmemory, maxmemory_policy: policy }: ServerInfo): string | undefined {
  if (policy === undefined) return undefined;
  if (maxmemory === '0') {
    return 'Redis has no maxmemory: entries and orphans stay until their TTL, and Redis evicts nothing.';
  }
  const costs = `Redis has the policy ${policy}: ${costsOf(policy)}.`;
  return policy === 'noeviction'
    ? costs
    : `${costs} An evicted quarantine costs the strictness of its commit. Strict commits need noeviction.`;
}

/** What a full Redis does under a policy, and what that costs. Generations have the longest TTLs, freshness keys the shortest. */
export function costsOf(policy: string): string {
  if (policy === 'noeviction') return 'a full Redis refuses fills, and misses go to the source';
  const what = EVICTED[policy.replace(/^\w+-/, '')] ?? 'entries and generations, a miss for each entry below';
  const evicts = `a full Redis evicts ${what}`;
  return policy.startsWith('volatile-') ? `${evicts}; while keys without a TTL fill it, it refuses fills` : evicts;
}

const EVICTED: Readonly<Record<string, string>> = {
  lfu: 'entries, a miss each, and almost no generation, since every read reads those',
  lru: 'entries, a miss each, and some generations, a miss for each entry below',
  random: 'at random, generations as readily as entries, and each costs a miss for every entry below',
  ttl:
    'first of all leases, quarantines and freshness keys, which expire soonest: entries are loaded twice, and caches with ' +
    'maxStalenessMs read the source meanwhile',
};
