import type { Redis } from 'ioredis';
import { incarnationOf, parseInfo } from '../../store/redis/server-info.js';
import { explain } from '../explain.js';
import { broken, type Finding, ok, warn } from './finding.js';

/** What is known of the server. */
export interface RedisFacts {
  /** Who it is; undefined if this user is not told. */
  readonly incarnation: string | undefined;
  readonly primary: boolean;
  /** Whether nothing is evicted: what a strict commit wants. */
  readonly keeps: boolean;
}

interface Info {
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

/** Looks at the server itself. Two commands. */
export async function lookAtRedis(redis: Redis): Promise<{ readonly findings: Finding[]; readonly facts: RedisFacts }> {
  let info: Info;
  try {
    info = parseInfo(await redis.info()) as Info;
  } catch (error) {
    const remedy = 'Let the user run INFO, also inside scripts: without it no relay knows which server it bumped.';
    const findings = [broken('Redis', `its user may not see INFO: ${explain(error)}`, remedy)];
    return { findings, facts: { incarnation: undefined, primary: true, keeps: false } };
  }
  const primary = info.role === 'master';
  const keeps = info.maxmemory === '0' || info.maxmemory_policy === 'noeviction';
  return {
    findings: [server(info, primary), memory(info), await past(redis, info)],
    facts: { incarnation: incarnationOf(info), primary, keeps },
  };
}

function server({ redis_version: version = '?', cluster_enabled: cluster }: Info, primary: boolean): Finding {
  if (!primary) {
    return broken('Redis', `${version}, a replica: it may be behind, and can't be written to`, 'Pass the primary.');
  }
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < 6 || (major === 6 && minor < 2)) return broken('Redis', `${version}; 6.2 is needed`, 'Upgrade it.');
  if (cluster === '1') return broken('Redis', `${version}, a node of a Cluster`, 'Pass a single primary.');
  return ok('Redis', `${version}, a primary`);
}

function memory({
  maxmemory,
  maxmemory_human: human,
  maxmemory_policy: policy,
  evicted_keys: evicted = '0',
}: Info): Finding {
  if (maxmemory === '0') {
    return ok(
      'Redis memory',
      `no maxmemory: orphans and entries stay until their TTL, and nothing is evicted (${policy})`,
    );
  }
  if (policy === 'noeviction') {
    return ok(
      'Redis memory',
      `maxmemory ${human}, noeviction: when it is full, fills are refused, and nothing is evicted`,
    );
  }
  return warn(
    'Redis memory',
    `maxmemory ${human}, ${policy}, ${evicted} keys evicted: that costs misses, and the strictness of a commit whose quarantine is evicted`,
    'For strict commits (step 4b), set maxmemory-policy to noeviction. For all else nothing.',
  );
}

/** What it can go back to: a relay repairs that, and a bound covers the time until it has. */
async function past(redis: Redis, { aof_enabled: aof, connected_slaves: replicas = '0' }: Info): Promise<Finding> {
  // Where CONFIG is forbidden, as managed servers have it, snapshots are not ruled out.
  const save = await redis.config('GET', 'save').then(
    (reply) => (Array.isArray(reply) ? String(reply[1]) : Object.values(reply as object).join('')),
    () => 'unknown',
  );
  const kept = aof === '1' ? 'an append-only file' : save === '' ? 'nothing' : 'snapshots';
  const restart = kept === 'nothing' ? 'starts empty' : 'may have lost the last bumps';
  const failover = replicas === '0' ? '' : `; ${replicas} replicas: one that is promoted may have missed bumps`;
  return ok('Redis past', `keeps ${kept}: a restart ${restart}${failover}`);
}
