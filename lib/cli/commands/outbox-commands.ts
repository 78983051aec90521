import type { Knex } from 'knex';
import { installedRelease, installOutbox, OUTBOX_RELEASE, uninstallOutbox } from '../../knex/install/install-outbox.js';
import { type OutboxOptions, qualifier } from '../../knex/outbox/location.js';
import { JSON_OUTPUT, UsageError } from '../arguments.js';
import { columns, type Command, FAILED, OK } from '../command.js';
import { DATABASE, withDatabase } from '../servers.js';

export const outboxInstall: Command = {
  words: ['outbox', 'install'],
  summary: "Makes the outbox, or brings an older release's up to this one",
  options: DATABASE,
  about:
    'What waits in it stays. Does nothing where it is as it should be. `installOutbox` in a migration of your own does\n' +
    'the same, and keeps databases alike.',
  example: 'gencache outbox install --schema audit',
  run: (args, terminal) =>
    withDatabase(args, terminal, {}, async ({ db, outbox }) => {
      const before = await installedRelease(db, outbox);
      await installOutbox(db, outbox);
      const was = before === OUTBOX_RELEASE ? 'as it was' : `before: ${before ?? 'none'}`;
      terminal.out(`The outbox is there, release ${(await installedRelease(db, outbox))!} (${was}).`);
      return OK;
    }),
};

export const outboxUninstall: Command = {
  words: ['outbox', 'uninstall'],
  summary: 'Takes away every trigger, the outbox, and what waits in it',
  needs: '--yes',
  options: { yes: { help: 'yes, for every cache' }, ...DATABASE },
  about:
    'Stop the relays first. Changes that were recorded and not yet bumped are forgotten: readers may see old data for a TTL.',
  example: 'gencache outbox uninstall --yes',
  async run(args, terminal) {
    if (!args.flag('yes')) {
      throw new UsageError(
        'Uninstalling forgets changes that wait to be bumped, of every cache. Add --yes if that is meant.',
      );
    }
    return withDatabase(args, terminal, {}, async ({ db, outbox }) => {
      const before = await installedRelease(db, outbox);
      await uninstallOutbox(db, outbox);
      terminal.out(before === undefined ? 'There was no outbox.' : `The outbox, release ${before}, is gone.`);
      return OK;
    });
  },
};

export const outboxStatus: Command = {
  words: ['outbox', 'status'],
  summary: 'Tells the release of the outbox, and what waits in it for each cache',
  options: { json: JSON_OUTPUT, ...DATABASE },
  about: 'Exits with 1 where there is none, or one of an older release.',
  example: 'gencache outbox status',
  run: (args, terminal) =>
    withDatabase(args, terminal, {}, async ({ db, outbox }) => {
      const release = await installedRelease(db, outbox);
      const caches = release === undefined ? [] : await waiting(db, outbox);
      const state = { release: release ?? null, wanted: OUTBOX_RELEASE, caches };
      if (args.flag('json')) terminal.out(JSON.stringify(state));
      else {
        terminal.out(release === undefined ? 'There is no outbox.' : `The outbox is there, release ${release}.`);
        if (release !== undefined && release < OUTBOX_RELEASE) {
          terminal.out(`This program wants release ${OUTBOX_RELEASE}. Run \`gencache outbox install\`.`);
        }
        if (caches.length > 0) terminal.out(columns([HEAD, ...caches.map(shown)]));
      }
      return release === undefined || release < OUTBOX_RELEASE ? FAILED : OK;
    }),
};

interface Waiting {
  readonly cache: string;
  readonly events: number;
  /** Age of the oldest, in ms; null if none waits. */
  readonly lagMs: number | null;
  readonly held: number;
  readonly deadLetters: number;
}

const HEAD = ['cache', 'events', 'lag', 'held by a migration', 'dead letters'];

function shown({ cache, events, lagMs, held, deadLetters }: Waiting): string[] {
  return [cache, String(events), lagMs === null ? '-' : `${Math.round(lagMs)} ms`, String(held), String(deadLetters)];
}

/** For each cache that the outbox knows of. One query, which reads all that waits. */
async function waiting(db: Knex, outbox: OutboxOptions): Promise<Waiting[]> {
  const at = qualifier(outbox);
  const { rows } = await db.raw<{ rows: Waiting[] }>(
    `select cache, coalesce(sum(events), 0)::int as events, max(lag)::float as "lagMs",
       coalesce(sum(held), 0)::int as held, coalesce(sum(aside), 0)::int as "deadLetters"
     from (
       select cache, count(*) as events, extract(epoch from clock_timestamp() - min(recorded_at)) * 1000 as lag,
         count(held_by) as held, 0 as aside
       from ${at}gencache_outbox group by cache
       union all select cache, 0, null, 0, count(*) from ${at}gencache_dead_letter group by cache
       union all select distinct cache, 0, null::numeric, 0, 0 from ${at}gencache_trigger
     ) as known
     group by cache order by cache`,
  );
  return rows;
}
