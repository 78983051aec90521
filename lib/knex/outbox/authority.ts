import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from './location.js';
import { ANSWER_MS } from './survey.js';
import { query } from '../postgres/query.js';
import { queryReadWrite } from '../postgres/read-write.js';

/** One incarnation of each server. */
export interface Incarnations {
  readonly redis: string;
  readonly postgres: string;
}

/**
 * The authoritative incarnations, and the id of their epoch. Two servers may be authoritative in turns (split brain).
 * The mark that a server gets with an epoch must differ from the mark of its earlier epoch: otherwise, after a relay that
 * dies between taking authority and repairing, another relay would take the old mark for the repair.
 */
export interface Epoch extends Incarnations {
  readonly epoch: string;
}

/**
 * The authoritative incarnation of Redis, which stays so until this transaction commits (FOR SHARE): an event may be
 * deleted only if the server that took its bump is the one that readers use (docs/protocol.md, rule 10). Undefined
 * before the first epoch of this cache: the relay that begins it bumps everything, after all earlier commits.
 */
export async function authoritativeRedis(
  trx: Knex,
  cache: string,
  options: OutboxOptions,
): Promise<string | undefined> {
  const rows = await query<{ redis: string }>(
    trx,
    `select redis from ${qualifier(options)}gencache_authority where cache = ? for share`,
    [cache],
  );
  return rows[0]?.redis;
}

/**
 * Makes these incarnations authoritative, if `seen` is still the present epoch. One statement, committed by itself;
 * waits for transactions that delete events under the old epoch. Returns the new epoch; undefined if another relay was
 * first.
 */
export async function claimAuthority(
  db: Knex,
  { redis, postgres }: Incarnations,
  { cache, seen, outbox }: { readonly cache: string; readonly seen: Epoch | undefined; readonly outbox: OutboxOptions },
): Promise<Epoch | undefined> {
  const table = `${qualifier(outbox)}gencache_authority`;
  const rows = await queryReadWrite<{ epoch: string }>(
    db,
    seen === undefined
      ? `insert into ${table} (cache, redis, postgres) values (:cache, :redis, :postgres) on conflict do nothing
         returning epoch`
      : `update ${table}
         set redis = :redis, postgres = :postgres, epoch = gen_random_uuid(), changed_at = clock_timestamp()
         where cache = :cache and epoch = cast(:seen as uuid) returning epoch`,
    { cache, redis, postgres, ...(seen && { seen: seen.epoch }) },
    { answerMs: ANSWER_MS },
  );
  return rows[0] && { redis, postgres, epoch: rows[0].epoch };
}

/** Notes the boot after a crash, under a new id: surveys name it from then on. One statement. */
export async function noteBoot(db: Knex, options: OutboxOptions): Promise<void> {
  const sql = `insert into ${qualifier(options)}gencache_boot default values on conflict do nothing`;
  await queryReadWrite(db, sql, undefined, { answerMs: ANSWER_MS });
}
