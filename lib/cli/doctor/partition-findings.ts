import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from '../../knex/outbox/location.js';
import { query } from '../../knex/postgres/query.js';
import { duration } from './duration.js';
import { type Finding, ok, warn } from './finding.js';

/** Partitions that are named one by one. */
const NAMED_MAX = 5;

interface PartitionRow {
  /** `17/64`. */
  readonly partition: string;
  readonly hasAuthority: boolean;
  /** Age of the oldest bump that it owes, in ms; null if it owes none. */
  readonly owedMs: number | null;
}

/**
 * The partitions of a cache on a Redis Cluster that relays know: which of them have authoritative servers, and which owe bumps
 * (docs/protocol.md, rules 9a and 10a). Nothing for a cache with one, and where the role may not read them. Two queries.
 */
export async function partitionFindings(db: Knex, cache: string, outbox: OutboxOptions): Promise<Finding[]> {
  const at = qualifier(outbox);
  const tables = [`${at}gencache_partition`, `${at}gencache_owed`];
  const [readable] = await query<{ all: boolean | null }>(
    db,
    `select bool_and(coalesce(has_table_privilege(to_regclass(name), 'select'), false)) as all from unnest(?::text[]) as name`,
    [tables],
  );
  if (readable?.all !== true) return [];
  const rows = await query<PartitionRow>(
    db,
    `select partition, authority.redis is not null as "hasAuthority",
       (extract(epoch from clock_timestamp() - oldest) * 1000)::float8 as "owedMs"
     from (select partition, redis from ${tables[0]} where cache = :cache) as authority
     full join (select partition, min(recorded_at) as oldest from ${tables[1]} where cache = :cache group by 1) as owed
       using (partition)
     order by coalesce(nullif(split_part(partition, '/', 2), ''), '1')::int, split_part(partition, '/', 1)::int`,
    { cache },
  );
  const findings: Finding[] = [];
  for (const count of new Set(rows.map(layoutOf))) {
    const of = rows.filter((row) => layoutOf(row) === count);
    const known = of.filter(({ hasAuthority }) => hasAuthority).length;
    findings.push(
      known === count
        ? ok(
            'partitions',
            `relays have made a server authoritative for ${count === 1 ? 'the partition' : `each of ${count} partitions`}`,
          )
        : warn(
            'partitions',
            `relays have made a server authoritative for ${known} of ${count} partitions`,
            'If a relay runs, read its log: the primaries of the others are away.',
          ),
    );
  }
  const owing = rows.filter(({ owedMs }) => owedMs !== null);
  if (owing.length > 0) {
    const names = owing.slice(0, NAMED_MAX).map(({ partition }) => partition);
    const more = owing.length - names.length;
    const oldestMs = Math.max(...owing.map(({ owedMs }) => owedMs!));
    findings.push(
      warn(
        'owed',
        `partitions owe bumps: ${names.join(', ')}${more > 0 ? ` and ${more} more` : ''}, the oldest for ${duration(oldestMs)}`,
        'Their primaries are away, or were a moment ago: look at the cluster. A relay makes these bumps once they are back.',
      ),
    );
  }
  return findings;
}

/** The number of partitions of a row's layout. */
function layoutOf({ partition }: PartitionRow): number {
  return Number(partition.split('/')[1] ?? 1);
}

/**
 * Processes with another number of partitions than `count` (docs/protocol.md, rule 24): each bump costs a command more, and they
 * share no entries. `layouts`: the registered numbers.
 */
export function layoutFindings(count: number | undefined, layouts: readonly number[]): Finding[] {
  const others = layouts.filter((each) => each !== count).sort((one, other) => one - other);
  if (count === undefined || others.length === 0) return [];
  const fact = `processes of the last seven days have ${others.join(', ')} ${others[0] === 1 ? 'partition' : 'partitions'}, not ${count}`;
  const remedy =
    'During a change of `partitions` this is right: bumps reach both. Otherwise give each process, relay and doctor the same number.';
  return [warn('partitions', fact, remedy)];
}
