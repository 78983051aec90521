import type { Knex } from 'knex';
import { GenerationalCache, memoryStore } from '../../lib/index.js';
import { knexSource, type KnexContext } from '../../lib/knex/index.js';

export type DeclaredCache = GenerationalCache<KnexContext, Knex.Transaction>;

/** Runs one process of an application for as long as it needs to publish: it declares, bumps once, and ends. */
export async function publish(
  db: Knex,
  name: string,
  declare: (cache: DeclaredCache) => unknown,
  options: { readonly maxStalenessMs?: number } = {},
): Promise<void> {
  const cache = new GenerationalCache({ name, store: memoryStore(), source: knexSource(db), ...options });
  declare(cache);
  await cache.bump();
  await cache.close();
}

/** Moves the times of all publications of a cache into the past. */
export async function age(db: Knex, cache: string, hours: number): Promise<void> {
  const earlier = (column: string) => db.raw(`${column} - ? * interval '1 hour'`, [hours]);
  await db('gencache_declaration')
    .where({ cache })
    .update({ first_seen_at: earlier('first_seen_at'), last_seen_at: earlier('last_seen_at') });
}
