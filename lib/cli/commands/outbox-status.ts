import type { Knex } from 'knex';
import { installedRelease, OUTBOX_RELEASE } from '../../knex/install/install-outbox.js';
import { type OutboxOptions, qualifier } from '../../knex/outbox/location.js';
import { columns } from '../columns.js';
import { type Command, FAILED, OK } from '../command.js';
import { withDatabase } from '../database.js';
import { DATABASE_OPTIONS, JSON_OPTION } from '../option.js';
import { query } from '../../knex/postgres/query.js';

export const outboxStatusCommand: Command = {
  words: ['outbox', 'status'],
  summary: 'Shows the release of the outbox, and the waiting events of each cache',
  options: { json: JSON_OPTION, ...DATABASE_OPTIONS },
  about: 'Exits with 1 if the outbox is missing or has an older release.',
  example: 'gencache outbox status',
  run: (args, terminal) =>
    withDatabase(args, terminal, async ({ db, outbox }) => {
      const release = await installedRelease(db, outbox);
      const caches = release === undefined ? [] : await backlogs(db, outbox);
      const status = { release: release ?? null, requiredRelease: OUTBOX_RELEASE, caches };
      if (args.flag('json')) terminal.out(JSON.stringify(status));
      else {
        terminal.out(release === undefined ? 'There is no outbox.' : `The outbox has release ${release}.`);
        if (release !== undefined && release < OUTBOX_RELEASE) {
          terminal.out(`This program requires release ${OUTBOX_RELEASE}. Run \`gencache outbox install\`.`);
        }
        if (caches.length > 0) terminal.out(columns([HEAD, ...caches.map(toRow)]));
      }
      return release === undefined || release < OUTBOX_RELEASE ? FAILED : OK;
    }),
};

/** The events of one cache in the outbox. */
interface Backlog {
  readonly cache: string;
  readonly events: number;
  /** Age of the oldest event, in ms; null without events. */
  readonly lagMs: number | null;
  /** The part of the events that a running migration holds back. */
  readonly heldByMigration: number;
  readonly deadLetters: number;
}

const HEAD = ['cache', 'events', 'lag', 'held by a migration', 'dead letters'];

function toRow({ cache, events, lagMs, heldByMigration, deadLetters }: Backlog): string[] {
  const lag = lagMs === null ? '-' : `${Math.round(lagMs)} ms`;
  return [cache, String(events), lag, String(heldByMigration), String(deadLetters)];
}

/** The backlog of each cache with events, dead letters or triggers. One query, which reads every waiting event. */
async function backlogs(db: Knex, outbox: OutboxOptions): Promise<Backlog[]> {
  const at = qualifier(outbox);
  const rows = await query<Backlog>(
    db,
    `select cache, coalesce(sum(events), 0)::int as events, max(lag)::float as "lagMs",
       coalesce(sum(held), 0)::int as "heldByMigration", coalesce(sum(dead), 0)::int as "deadLetters"
     from (
       select cache, count(*) as events, extract(epoch from clock_timestamp() - min(recorded_at)) * 1000 as lag,
         count(held_by) as held, 0 as dead
       from ${at}gencache_outbox group by cache
       union all select cache, 0, null, 0, count(*) from ${at}gencache_dead_letter group by cache
       union all select distinct cache, 0, null::numeric, 0, 0 from ${at}gencache_trigger
     ) as known
     group by cache order by cache`,
  );
  return rows;
}
