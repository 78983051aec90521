import type { Knex } from 'knex';
import { installedRelease, OUTBOX_RELEASE } from '../../knex/install/install-outbox.js';
import { Frontier } from '../../knex/outbox/frontier.js';
import { type OutboxOptions, qualifier } from '../../knex/outbox/location.js';
import { surveyOutbox } from '../../knex/outbox/survey.js';
import { explain } from '../explain.js';
import { findCacheNames, type CacheNames } from '../cache-names.js';
import { describeLacking, grants, type Lacking, lackingRights } from '../rights.js';
import { broken, type Finding, ok, warn } from './finding.js';

/** What is known of the outbox that is there. */
export interface OutboxFacts {
  /** Events that wait for a relay, up to `COUNTED_MAX` and one; and the oldest one's age, in ms. */
  readonly waiting: number;
  readonly lagMs: number;
  /** The incarnations that count, if a relay has ever counted any; and PostgreSQL's own. */
  readonly authority: { readonly redis: string; readonly postgres: string } | undefined;
  readonly postgres: string | undefined;
  readonly names: CacheNames;
}

export const COUNTED_MAX = 10_000;
/** A relay that is alive and further behind than this, in ms, does not keep up. */
const LAG_MAX_MS = 10_000;
/** A migration that runs for longer has died, more likely, in ms. */
const HELD_MAX_MS = 3_600_000;

/** Looks at the outbox, and at what waits there for a cache. Six queries. */
export async function lookAtOutbox(
  db: Knex,
  cache: string,
  role: string,
  outbox: OutboxOptions,
): Promise<{ readonly findings: Finding[]; readonly facts?: OutboxFacts; readonly unreadable?: true }> {
  let release: number | undefined;
  try {
    release = await installedRelease(db, outbox);
  } catch (error) {
    const lacking = await lackingRights(db, outbox).catch(() => []);
    return { findings: [cannotRead(role, explain(error), lacking)], unreadable: true };
  }
  if (release === undefined) {
    const remedy =
      'For step 2, call `installOutbox` in a migration, or run `gencache outbox install`; --schema says where it is if it is there.';
    return { findings: [warn('outbox', 'there is none: changes are not recorded', remedy)] };
  }
  if (release < OUTBOX_RELEASE) {
    const remedy = 'Call `installOutbox` in a new migration, or run `gencache outbox install`.';
    return { findings: [broken('outbox', `release ${release}; relays want ${OUTBOX_RELEASE}`, remedy)] };
  }
  const findings = [
    release > OUTBOX_RELEASE
      ? warn('outbox', `release ${release}, made by a newer gencache than this`, 'Run the doctor of that release.')
      : ok('outbox', `release ${release}`),
  ];
  const lacking = await lackingRights(db, outbox);
  if (lacking.length > 0) {
    const remedy = `As their owner: ${grants(role, lacking)} Or run the doctor as the role that relays.`;
    findings.push(broken('rights', `${role} may not: ${describeLacking(lacking)}`, remedy));
  }
  try {
    const { authority, postgres } = await surveyOutbox(db, cache, new Frontier(), undefined, outbox);
    const counts = await count(db, cache, outbox);
    findings.push(...describe(counts));
    const names = await findCacheNames(db, cache, outbox);
    return { findings, facts: { waiting: counts.waiting, lagMs: counts.lagMs ?? 0, authority, postgres, names } };
  } catch (error) {
    return { findings: [...findings, cannotRead(role, explain(error), lacking)], unreadable: true };
  }
}

/** What there is to say about what waits, and whether anybody relays, if that is known. */
export function describeWaiting({ waiting, lagMs }: OutboxFacts, relayAlive: boolean | undefined): Finding {
  if (waiting === 0) return ok('lag', 'no event waits');
  const many = waiting > COUNTED_MAX ? `more than ${COUNTED_MAX}` : String(waiting);
  const message = `events that wait: ${many}, the oldest for ${Math.round(lagMs)} ms`;
  if (relayAlive === false) return broken('lag', `${message}, and nobody bumps them`, 'Run a relay.');
  if (lagMs <= LAG_MAX_MS) return ok('lag', message);
  if (relayAlive === undefined) {
    return broken(
      'lag',
      `${message}: nobody has bumped them`,
      'See to Redis; then look again, and read the log of the relay.',
    );
  }
  return broken(
    'lag',
    `${message}: relays don't keep up, or fail`,
    'Read their log. Run another one, or give each a larger --batch.',
  );
}

interface Counts {
  readonly waiting: number;
  readonly lagMs: number | null;
  readonly deadLetters: number;
  readonly held: number;
  readonly heldMs: number | null;
}

async function count(db: Knex, cache: string, outbox: OutboxOptions): Promise<Counts> {
  const at = qualifier(outbox);
  const { rows } = await db.raw<{ rows: Counts[] }>(
    `select
       (select count(*)::int from (
          select from ${at}gencache_outbox where cache = :cache and held_by is null limit :max) as waits) as waiting,
       (select extract(epoch from clock_timestamp() - min(recorded_at))::float * 1000 from ${at}gencache_outbox
        where cache = :cache and held_by is null) as "lagMs",
       (select count(*)::int from ${at}gencache_dead_letter where cache = :cache) as "deadLetters",
       (select count(*)::int from ${at}gencache_outbox where cache = :cache and held_by is not null) as held,
       (select extract(epoch from clock_timestamp() - min(recorded_at))::float * 1000 from ${at}gencache_outbox
        where cache = :cache and held_by is not null) as "heldMs"`,
    { cache, max: COUNTED_MAX + 1 },
  );
  return rows[0]!;
}

function describe({ deadLetters, held, heldMs }: Counts): Finding[] {
  const findings: Finding[] = [];
  if (deadLetters > 0) {
    findings.push(
      warn(
        'dead letters',
        `events that no relay understood: ${deadLetters}; the scope above each was bumped instead`,
        'Run `gencache dead-letters list`; once their cause is gone, `gencache dead-letters retry`, or delete their rows.',
      ),
    );
  }
  if (held > 0 && (heldMs ?? 0) > HELD_MAX_MS) {
    findings.push(
      warn(
        'migration',
        `events held by a migration's lock: ${held}, for ${Math.round((heldMs ?? 0) / 60_000)} min; they are bumped again and again`,
        'If no migration runs any more, run `knex migrate:unlock`.',
      ),
    );
  } else if (held > 0) findings.push(ok('migration', `events held by a migration that runs: ${held}`));
  return findings;
}

/** `lacking`: as far as that could be looked up. */
function cannotRead(role: string, why: string, lacking: readonly Lacking[]): Finding {
  const granting = lacking.length > 0 ? `As its owner: ${grants(role, lacking)}` : 'Grant the role its tables.';
  return broken('outbox', `${role} can't read it: ${why}`, `${granting} Or pass the role that relays.`);
}
