import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from '../knex/outbox/location.js';

/** What the outbox tells about a cache's name. That a relay ran under it is no evidence: that relay may be misspelt. */
export interface CacheNames {
  /** Whether triggers, a migration or an event that still waits have this name. */
  readonly recorded: boolean;
  /** Whether a relay has ever run under it. */
  readonly relayed: boolean;
  /** The other names that are recorded, a few. */
  readonly others: readonly string[];
}

const OTHERS_MAX = 20;

/** One query, by index: a few rows of the outbox for each cache. */
export async function findCacheNames(db: Knex, cache: string, outbox: OutboxOptions): Promise<CacheNames> {
  const at = qualifier(outbox);
  const { rows } = await db.raw<{ rows: { names: string[]; relayed: boolean }[] }>(
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
     select array(select cache from recorded order by cache <> :cache, cache limit :max) as names,
       exists (select from ${at}gencache_authority where cache = :cache) as relayed`,
    { cache, max: OTHERS_MAX + 1 },
  );
  const { names, relayed } = rows[0]!;
  return { recorded: names.includes(cache), relayed, others: names.filter((name) => name !== cache) };
}

/** Whether it is likelier that the name is misspelt than that its writers all bump by hand. */
export function looksMisspelt({ recorded, others }: CacheNames): boolean {
  return !recorded && others.length > 0;
}

export function misspelt(cache: string, { others }: CacheNames): string {
  return `no trigger and no event here has the name ${cache}; there are ${others.join(', ')}`;
}

export const CHECK_NAME = 'See whether --cache is the `name` of the GenerationalCache.';
