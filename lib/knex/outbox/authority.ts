import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from './location.js';
import { ANSWER_MS } from './survey.js';

/** The incarnations that count, or are to. */
export interface Incarnations {
  readonly redis: string;
  readonly postgres: string;
}

/**
 * Incarnations that were counted. Two servers may be counted in turns (split brain): what a server is marked with when
 * its turn begins has to differ from the mark of its turn before, or a relay that dies between counting and repairing leaves one that
 * takes that old mark for the repair. Hence a name for each turn.
 */
export interface Epoch extends Incarnations {
  readonly epoch: string;
}

/**
 * The incarnation of Redis that counts, and still will when this transaction commits (FOR SHARE): who deletes an event
 * needs to know that the server that took its bump is the one that readers trust (docs/protocol.md, rule 10). Undefined where
 * no relay has ever counted one: the first that does bumps everything, after all that committed before.
 */
export async function authoritativeRedis(
  trx: Knex.Transaction,
  cache: string,
  options: OutboxOptions,
): Promise<string | undefined> {
  const { rows } = await trx.raw<{ rows: { redis: string }[] }>(
    `select redis from ${qualifier(options)}gencache_authority where cache = ? for share`,
    [cache],
  );
  return rows[0]?.redis;
}

/**
 * Makes these incarnations the ones that count, if `seen` still are. One statement, committed by itself; waits for
 * those that delete events under the old ones. Returns the reign that begins; undefined if somebody else was first.
 */
export async function claimAuthority(
  db: Knex,
  { redis, postgres }: Incarnations,
  { cache, seen, outbox }: { readonly cache: string; readonly seen: Epoch | undefined; readonly outbox: OutboxOptions },
): Promise<Epoch | undefined> {
  const table = `${qualifier(outbox)}gencache_authority`;
  const claiming = db.raw<{ rows: { epoch: string }[] }>(
    seen === undefined
      ? `insert into ${table} (cache, redis, postgres) values (:cache, :redis, :postgres) on conflict do nothing
         returning epoch`
      : `update ${table}
         set redis = :redis, postgres = :postgres, epoch = gen_random_uuid(), changed_at = clock_timestamp()
         where cache = :cache and epoch = cast(:seen as uuid) returning epoch`,
    { cache, redis, postgres, ...(seen && { seen: seen.epoch }) },
  );
  const { rows } = await claiming.timeout(ANSWER_MS);
  return rows[0] && { redis, postgres, epoch: rows[0].epoch };
}

/** After a crash: the next survey finds a boot that was never before. One statement. */
export async function noteBoot(db: Knex, options: OutboxOptions): Promise<void> {
  await db
    .raw(`insert into ${qualifier(options)}gencache_boot default values on conflict do nothing`)
    .timeout(ANSWER_MS);
}
