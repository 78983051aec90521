import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from '../knex/outbox/location.js';
import { type NameFault, PublishedCaches } from '../knex/outbox/published-caches.js';
import { query } from '../knex/postgres/query.js';

/** The cache names in an outbox. A name that only a relay has used is no evidence: that relay may have a misspelt name. */
export interface CacheNames {
  /** Whether a trigger, a waiting event or a dead letter has this name. */
  readonly recorded: boolean;
  /** Whether a relay has ever run under this name. */
  readonly relayed: boolean;
  /** Other names that are recorded, 20 at most. */
  readonly others: readonly string[];
  /** Applications have published other names, and not this one. */
  readonly fault: NameFault | undefined;
}

const OTHERS_MAX = 20;

/** `onCluster`: whether the cache is on a Redis Cluster. Three queries, by index: they read a few rows of the outbox for each cache. */
export async function findCacheNames(
  db: Knex,
  cache: string,
  outbox: OutboxOptions,
  { onCluster = false }: { readonly onCluster?: boolean } = {},
): Promise<CacheNames> {
  const at = qualifier(outbox);
  const rows = await query<{ names: string[]; relayed: boolean }>(
    db,
    `with recursive waiting (cache) as (
       (select cache from ${at}gencache_outbox order by cache limit 1)
       union all
       select (select next.cache from ${at}gencache_outbox as next where next.cache > waiting.cache order by 1 limit 1)
       from waiting where waiting.cache is not null
     ), recorded as (
       select cache from waiting where cache is not null
       union select cache from ${at}gencache_trigger
       union select cache from ${at}gencache_dead_letter
     )
     select to_json(array(select cache from recorded order by cache <> :cache, cache limit :max)) as names,
       exists (select from ${at}${onCluster ? 'gencache_partition' : 'gencache_authority'} where cache = :cache) as relayed`,
    { cache, max: OTHERS_MAX + 1 },
  );
  const { names, relayed } = rows[0]!;
  const fault = (await PublishedCaches.read(db, outbox)).nameFault(cache);
  return { recorded: names.includes(cache), relayed, others: names.filter((name) => name !== cache), fault };
}

/** Whether a misspelt name is likelier than a cache whose writers all bump by hand, or that publishes nothing. */
export function looksMisspelt({ recorded, others, fault }: CacheNames): boolean {
  return fault !== undefined || (!recorded && others.length > 0);
}

/** `no trigger and no event has the cache name "a"; this outbox has: b, c`. */
export function describeMisspelling(cache: string, { others, fault }: CacheNames): string {
  if (fault !== undefined) return `n${fault.message.slice(1, -1)}`;
  return `no trigger and no event has the cache name "${cache}"; this outbox has: ${others.join(', ')}`;
}

export const CHECK_NAME = 'Check that --cache is the `name` of the GenerationalCache.';

/** `Did you mean "flags"? ...` */
export function misspellingRemedy({ fault }: CacheNames): string {
  return fault?.remedy ?? CHECK_NAME;
}
