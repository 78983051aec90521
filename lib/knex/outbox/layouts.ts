/**
 * The registry of layouts, `gencache_layout`: the numbers of partitions that processes of a cache use (docs/protocol.md,
 * rule 24).
 */
import type { Knex } from 'knex';
import type { LayoutRegistry } from '../../ports/source.js';
import { query } from '../postgres/query.js';
import { queryReadWrite } from '../postgres/read-write.js';
import { literal } from '../postgres/sql-text.js';
import { explainOutboxError } from './explain-error.js';
import { type OutboxOptions, qualifier } from './location.js';
import { LAYOUT_RIGHTS } from './missing-rights.js';
import { checkHiddenTables, type MayHide, mayHideSql } from './row-security.js';

const TABLE = 'gencache_layout';
/** A layout that no process has registered for this time is deleted by the next that registers one. */
const KEPT = '7 days';
/** A longer silence is a half-open connection, or a lock on the table, in ms. */
const ANSWER_MS = 5_000;

export class KnexLayouts implements LayoutRegistry {
  readonly #db: Knex;
  readonly #outbox: OutboxOptions;
  /** No table is looked for again once it was there: without it, queries fail. */
  #isThere = false;

  constructor(db: Knex, outbox: OutboxOptions) {
    this.#db = db;
    this.#outbox = outbox;
  }

  /**
   * Registers a layout, durably whatever `synchronous_commit` is. Resolves to false where there is no registry: no outbox of
   * this release, a standby, or a transaction of a caller in place of a Knex. Three queries. Rejects with the missing GRANT, or as
   * PostgreSQL and `beforeFirst` do.
   */
  async register(cache: string, partitions: number, beforeFirst: () => Promise<unknown>): Promise<boolean> {
    const [db, table] = [this.#db, this.#table];
    if (db.isTransaction === true) return false;
    let isKnown;
    try {
      if (!(await this.#isInstalled(db, { forWriting: true }))) return false;
      isKnown = (await readLayouts(db, cache, this.#outbox)).includes(partitions);
    } catch (error) {
      throw await this.#explained(error);
    }
    if (!isKnown) await beforeFirst();
    try {
      await queryReadWrite(
        db,
        `select set_config('synchronous_commit', 'local', true) where current_setting('synchronous_commit') = 'off';
         insert into ${table} (cache, partitions) values (${literal(cache)}, ${partitions})
         on conflict (cache, partitions) do update set last_seen_at = clock_timestamp();
         delete from ${table} where cache = ${literal(cache)} and last_seen_at < clock_timestamp() - interval '${KEPT}'`,
        undefined,
        { answerMs: ANSWER_MS },
      );
      return true;
    } catch (error) {
      throw await this.#explained(error);
    }
  }

  /** The registered layouts, none where there is no registry. One query; another one the first time. Throws HiddenRowsError. */
  async read(cache: string): Promise<readonly number[]> {
    try {
      return (await this.#isInstalled(this.#db)) ? await readLayouts(this.#db, cache, this.#outbox) : [];
    } catch (error) {
      throw await this.#explained(error);
    }
  }

  get #table(): string {
    return `${qualifier(this.#outbox)}${TABLE}`;
  }

  /** `forWriting`: asks in any case, and whether this server is a standby. */
  async #isInstalled(db: Knex, { forWriting = false } = {}): Promise<boolean> {
    if (this.#isThere && !forWriting) return true;
    const [row] = await query<{ isThere: boolean; isStandby: boolean }>(
      db,
      `select to_regclass(${literal(this.#table)}) is not null as "isThere", pg_is_in_recovery() as "isStandby"`,
      undefined,
      { answerMs: ANSWER_MS },
    );
    this.#isThere = row!.isThere;
    return row!.isThere && !(forWriting && row!.isStandby);
  }

  #explained(error: unknown): Promise<unknown> {
    return explainOutboxError(this.#db, error, { outbox: this.#outbox, rights: LAYOUT_RIGHTS });
  }
}

/** The registered layouts of a cache. One query. Throws HiddenRowsError. */
async function readLayouts(db: Knex, cache: string, outbox: OutboxOptions): Promise<readonly number[]> {
  const [row] = await query<{ partitions: readonly number[]; mayHide: MayHide | null }>(
    db,
    `select ${mayHideSql(outbox, ['layout'])} as "mayHide",
       ${layoutsSql(qualifier(outbox))} as partitions`,
    { cache },
    { answerMs: ANSWER_MS },
  );
  await checkHiddenTables(db, outbox, { mayHide: row!.mayHide, tables: ['layout'] });
  return row!.partitions;
}

/** SQL for the registered layouts of the cache `:cache`, as JSON. `at`: the prefix of the outbox's tables. */
export function layoutsSql(at: string): string {
  return `(select coalesce(json_agg(partitions), '[]') from ${at}${TABLE} where cache = :cache)`;
}
