import type { Redis } from 'ioredis';
import { costsOf, incarnationOf, isReplica, parseInfo } from '../../store/redis/server-info.js';
import { explainError } from '../explain-error.js';
import { broken, type Finding, ok, warn } from './finding.js';

export interface RedisFacts {
  /** undefined if the user may not run INFO, or the host tells too little in it. */
  readonly incarnation: string | undefined;
  readonly isPrimary: boolean;
  /** Whether Redis never evicts a key, as strict commits need. */
  readonly keepsQuarantines: boolean;
}

interface RedisInfo {
  readonly redis_version?: string;
  readonly role?: string;
  readonly run_id?: string;
  readonly master_replid?: string;
  readonly maxmemory?: string;
  readonly maxmemory_human?: string;
  readonly maxmemory_policy?: string;
  readonly evicted_keys?: string;
  readonly aof_enabled?: string;
  readonly loading?: string;
  readonly connected_slaves?: string;
  readonly cluster_enabled?: string;
}

/** Checks the server itself. Two commands. `isInCluster`: whether the user named it as a Cluster's. */
export async function checkRedis(
  redis: Redis,
  { isInCluster }: { readonly isInCluster: boolean },
): Promise<{ readonly findings: Finding[]; readonly facts: RedisFacts | undefined }> {
  let info: RedisInfo;
  try {
    info = parseInfo(await redis.info()) as RedisInfo;
  } catch (error) {
    const remedy = 'Let the user run INFO, also inside scripts: without it no relay can tell which server it bumps.';
    const findings = [broken('Redis', `INFO is refused: ${explainError(error)}`, remedy)];
    return { findings, facts: { incarnation: undefined, isPrimary: true, keepsQuarantines: false } };
  }
  const isPrimary = !isReplica(info);
  // A single node of a Cluster refuses most keys.
  const isAskable = info.cluster_enabled !== '1' || isInCluster;
  const keepsQuarantines = info.maxmemory === '0' || info.maxmemory_policy === 'noeviction';
  return {
    findings: [
      serverFinding(info, { isPrimary, isAskable }),
      ...incarnationFindings(info),
      memoryFinding(info),
      await persistenceFinding(redis, info),
    ],
    facts: isAskable ? { incarnation: incarnationOf(info), isPrimary, keepsQuarantines } : undefined,
  };
}

function serverFinding(
  { redis_version: version = '?', role }: RedisInfo,
  { isPrimary, isAskable }: { readonly isPrimary: boolean; readonly isAskable: boolean },
): Finding {
  if (!isPrimary) {
    return broken('Redis', `${version}, a replica: it may lag behind, and rejects writes`, 'Pass the primary.');
  }
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < 6 || (major === 6 && minor < 2)) return broken('Redis', `${version} is older than 6.2`, 'Upgrade Redis.');
  if (!isAskable) {
    const remedy = 'Begin the address with redis+cluster:// (rediss+cluster:// for TLS).';
    return broken('Redis', `${version}, a node of a Cluster`, remedy);
  }
  if (role === undefined) {
    const message = `${version}, which does not tell whether it is a primary`;
    return warn('Redis', message, 'Connect to the primary: a replica has old generations.');
  }
  return ok('Redis', `${version}, a primary`);
}

/** A host without it is no server for a relay. */
function incarnationFindings(info: RedisInfo): Finding[] {
  if (incarnationOf(info) !== undefined) return [];
  const message =
    'INFO does not tell run_id and master_replid: no relay bumps there, and caches with `maxStalenessMs` read the source';
  return [warn('Redis', message, 'Steps 0 and 1 need neither. For the others use a Redis or Valkey, which tell them.')];
}

function memoryFinding({
  maxmemory,
  maxmemory_human: human,
  maxmemory_policy: policy,
  evicted_keys: evicted = '0',
}: RedisInfo): Finding {
  if (maxmemory === '0') {
    return ok(
      'Redis memory',
      `no maxmemory: entries and orphans stay until their TTL, and Redis evicts nothing (${policy})`,
    );
  }
  if (policy === undefined) {
    const remedy =
      'Ask the host: strict commits (step 4b) need noeviction, and the other steps are best served by allkeys-lfu.';
    return warn('Redis memory', 'INFO does not tell the eviction policy', remedy);
  }
  const facts = `maxmemory ${human}, ${policy}`;
  if (policy === 'noeviction') return ok('Redis memory', `${facts}: ${costsOf(policy)}; nothing is evicted`);
  return warn(
    'Redis memory',
    `${facts}, ${evicted} keys evicted: ${costsOf(policy)}; an evicted quarantine costs the strictness of its commit`,
    /-(?:random|ttl)$/.test(policy)
      ? 'Set maxmemory-policy to allkeys-lfu, which keeps generations, or to noeviction for strict commits (step 4b).'
      : 'Set maxmemory-policy to noeviction for strict commits (step 4b); the other steps need no change.',
  );
}

/** The state that Redis can go back to. A relay repairs that, and a bound covers the time until then. */
async function persistenceFinding(
  redis: Redis,
  { aof_enabled: aof, connected_slaves: replicas = '0' }: RedisInfo,
): Promise<Finding> {
  const save = await redis.config('GET', 'save').then(
    (reply) => (Array.isArray(reply) ? String(reply[1]) : Object.values(reply as object).join('')),
    () => undefined,
  );
  const kept =
    aof === '1'
      ? 'an append-only file'
      : save === ''
        ? 'no data on disk'
        : `snapshots${save === undefined ? ', as far as is known without CONFIG' : ''}`;
  const restart = kept === 'no data on disk' ? 'starts empty' : 'may lose the last bumps';
  const failover = replicas === '0' ? '' : `; ${replicas} replicas: a promoted replica may lack the last bumps`;
  return ok('Redis persistence', `Redis keeps ${kept}: a restart ${restart}${failover}`);
}
