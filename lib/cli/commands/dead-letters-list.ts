import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from '../../knex/outbox/location.js';
import { columns } from '../columns.js';
import { type Command, OK } from '../command.js';
import { withDatabase } from '../database.js';
import { CACHE_FILTER, DATABASE_OPTIONS, JSON_OPTION } from '../option.js';
import { query } from '../../knex/postgres/query.js';

export const deadLettersListCommand: Command = {
  words: ['dead-letters', 'list'],
  summary: 'Lists the events that no relay understood, the scope bumped for each, and the reason',
  options: { cache: CACHE_FILTER, json: JSON_OPTION, ...DATABASE_OPTIONS },
  about:
    'A dead letter leaves no old value readable: for each one the relay bumped the nearest scope that it understood.',
  example: 'gencache dead-letters list --cache shop',
  run: (args, terminal) =>
    withDatabase(args, terminal, async ({ db, outbox }) => {
      const letters = await deadLetters(db, outbox, args.cacheFilter());
      if (args.flag('json')) terminal.out(JSON.stringify(letters));
      else if (letters.length === 0) terminal.out('There are no dead letters.');
      else terminal.out(columns([HEAD, ...letters.map(toRow)]));
      return OK;
    }),
};

interface DeadLetter {
  readonly cache: string;
  readonly path: string;
  readonly lookup: string | null;
  readonly args: unknown;
  readonly source: string;
  readonly operation: string;
  readonly application: string;
  readonly recordedAt: Date;
  /** The path that the relay bumped instead. */
  readonly bumped: string;
  readonly reason: string;
}

const HEAD = ['cache', 'recorded', 'by', 'change', 'bumped', 'reason'];
const REASON_MAX = 200;

function toRow({ cache, recordedAt, application, source, operation, bumped, reason }: DeadLetter): string[] {
  const change = `${source} ${operation}`;
  const why = reason.replaceAll(/\s+/g, ' ').slice(0, REASON_MAX);
  return [cache, recordedAt.toISOString(), application || '-', change, bumped || 'global', why];
}

async function deadLetters(db: Knex, outbox: OutboxOptions, cache: string | undefined): Promise<DeadLetter[]> {
  const rows = await query<Omit<DeadLetter, 'recordedAt'> & { recordedAtMs: string }>(
    db,
    `select cache, path, lookup, args, source, operation, application, bumped, reason,
       extract(epoch from recorded_at) * 1000 as "recordedAtMs"
     from ${qualifier(outbox)}gencache_dead_letter where cache = coalesce(?, cache) order by cache, xid, seq`,
    [cache ?? null],
  );
  return rows.map(({ cache, path, lookup, args, source, operation, application, recordedAtMs, bumped, reason }) => {
    const recordedAt = new Date(Number(recordedAtMs));
    return { cache, path, lookup, args, source, operation, application, recordedAt, bumped, reason };
  });
}
