import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from '../../knex/outbox/location.js';
import { CACHE, JSON_OUTPUT } from '../arguments.js';
import { columns, type Command, OK } from '../command.js';
import { DATABASE, withDatabase } from '../servers.js';

export const deadLettersList: Command = {
  words: ['dead-letters', 'list'],
  summary: 'Lists events that no relay understood, with what was bumped instead, and why',
  options: { cache: { ...CACHE, help: 'only those of this cache' }, json: JSON_OUTPUT, ...DATABASE },
  about: 'Nothing old was served for them: the nearest scope above that could be understood was bumped.',
  example: 'gencache dead-letters list --cache shop',
  run: (args, terminal) =>
    withDatabase(args, terminal, {}, async ({ db, outbox }) => {
      const events = await deadLetters(db, outbox, args.anyCache());
      if (args.flag('json')) terminal.out(JSON.stringify(events));
      else if (events.length === 0) terminal.out('There are no dead letters.');
      else terminal.out(columns([HEAD, ...events.map(shown)]));
      return OK;
    }),
};

export const deadLettersRetry: Command = {
  words: ['dead-letters', 'retry'],
  summary: 'Puts events that were set aside back into the outbox, as new ones',
  needs: '--cache NAME',
  options: { cache: CACHE, ...DATABASE },
  about:
    'For when what was missing is there again: a lookup function, a newer relay. What is still not understood is set aside anew.',
  example: 'gencache dead-letters retry --cache shop',
  run: (args, terminal) =>
    withDatabase(args, terminal, {}, async ({ db, outbox }) => {
      const events = await retry(db, outbox, args.cache());
      terminal.out(events === 0 ? 'There are no dead letters.' : `Events that are back in the outbox: ${events}.`);
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
  readonly bumped: string;
  readonly reason: string;
}

const HEAD = ['cache', 'recorded', 'by', 'change', 'bumped', 'reason'];
const REASON_MAX = 200;

function shown({ cache, recordedAt, application, source, operation, bumped, reason }: DeadLetter): string[] {
  const change = `${source} ${operation}`;
  const why = reason.replaceAll(/\s+/g, ' ').slice(0, REASON_MAX);
  return [cache, recordedAt.toISOString(), application || '-', change, bumped || 'global', why];
}

async function deadLetters(db: Knex, outbox: OutboxOptions, cache: string | undefined): Promise<DeadLetter[]> {
  const { rows } = await db.raw<{ rows: DeadLetter[] }>(
    `select cache, path, lookup, args, source, operation, application, recorded_at as "recordedAt", bumped, reason
     from ${qualifier(outbox)}gencache_dead_letter where cache = coalesce(?, cache) order by cache, xid, seq`,
    [cache ?? null] as unknown as Knex.RawBinding[],
  );
  return rows;
}

/** One statement: an event is in one place or the other. Its row is locked; a second caller finds nothing. */
async function retry(db: Knex, outbox: OutboxOptions, cache: string): Promise<number> {
  const at = qualifier(outbox);
  const { rowCount } = await db.raw<{ rowCount: number }>(
    `with taken as (delete from ${at}gencache_dead_letter where cache = ? returning *)
     insert into ${at}gencache_outbox (cache, path, lookup, args, source, operation, application)
     select cache, path, lookup, args, source, operation, application from taken order by xid, seq`,
    [cache],
  );
  return rowCount;
}
