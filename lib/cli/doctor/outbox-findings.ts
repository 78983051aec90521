import type { Knex } from 'knex';
import { installedRelease, OUTBOX_RELEASE } from '../../knex/install/install-outbox.js';
import { EVERYWHERE } from '../../knex/outbox/event-position.js';
import { type OutboxOptions, qualifier } from '../../knex/outbox/location.js';
import { executeRemedy } from '../../knex/outbox/explain-error.js';
import { findHiddenTables, HiddenRowsError } from '../../knex/outbox/row-security.js';
import { completed, hasLineage, type LineageGap, readIncarnation } from '../../knex/outbox/incarnation.js';
import { ANSWER_MS, type Authority, surveyOutbox } from '../../knex/outbox/survey.js';
import { describeGaps, lineageRemedy } from '../../knex/outbox/lineage-remedy.js';
import { type CacheNames, findCacheNames } from '../cache-names.js';
import { explainError } from '../explain-error.js';
import {
  describeMissingRights,
  DOCTOR_RIGHTS,
  PARTITIONED_DOCTOR_RIGHTS,
  findMissingRights,
  grantStatements,
  type MissingRights,
} from '../../knex/outbox/missing-rights.js';
import { duration } from './duration.js';
import { broken, type Finding, ok, warn } from './finding.js';
import { layoutFindings, partitionFindings } from './partition-findings.js';
import { query } from '../../knex/postgres/query.js';

/** The facts about an outbox of this release. */
export interface OutboxFacts {
  /** Events that wait for a relay, `COUNTED_MAX` + 1 at most; and the age of the oldest, in ms. */
  readonly waiting: number;
  readonly lagMs: number;
  /** Size of the outbox on disk, of all caches, with its indexes: `1234 kB`. */
  readonly size: string;
  /** Undefined before the first relay. And PostgreSQL's present incarnation. */
  readonly authority: Authority | undefined;
  /** The authority of each partition of a cache on a Cluster; undefined elsewhere. */
  readonly partitions: ReadonlyMap<string, Authority | undefined> | undefined;
  readonly postgres: string | undefined;
  readonly names: CacheNames;
}

export interface OutboxCheck {
  readonly findings: Finding[];
  readonly facts?: OutboxFacts;
  /** True if the role may not read the outbox. */
  readonly isUnreadable?: true;
}

const COUNTED_MAX = 10_000;
/** A living relay with a greater lag does not keep up, in ms. */
const LAG_MAX_MS = 10_000;
/** Events of another cache that wait longer have no relay, in ms. */
const OTHER_LAG_MAX_MS = 60_000;
/** A migration that has held events for longer has probably died, in ms. */
const HELD_MAX_MS = 3_600_000;

/** Checks the outbox, and the events that wait there for a cache. `partitions`: their names, on a Cluster. Nine queries. */
export async function checkOutbox(
  db: Knex,
  outbox: OutboxOptions,
  {
    cache,
    role,
    partitions,
  }: { readonly cache: string; readonly role: string; readonly partitions: readonly string[] | undefined },
): Promise<OutboxCheck> {
  let release: number | undefined;
  try {
    release = await installedRelease(db, outbox);
  } catch (error) {
    const missing = await findMissingRights(db, outbox, DOCTOR_RIGHTS).catch(() => []);
    return { findings: [unreadableFinding(role, error, missing)], isUnreadable: true };
  }
  if (release === undefined) {
    const remedy =
      'For step 2, call `installOutbox` in a migration, or run `gencache outbox install`; for an outbox in another schema, add --schema.';
    return { findings: [warn('outbox', 'there is no outbox: changes are not recorded', remedy)] };
  }
  if (release < OUTBOX_RELEASE) {
    const remedy = 'Call `installOutbox` in a new migration, or run `gencache outbox install`.';
    return {
      findings: [broken('outbox', `the outbox has release ${release}; relays need release ${OUTBOX_RELEASE}`, remedy)],
    };
  }
  const findings = [
    release > OUTBOX_RELEASE
      ? warn(
          'outbox',
          `the outbox has release ${release}, which is newer than this program`,
          'Run the doctor of the newer gencache.',
        )
      : ok('outbox', `the outbox has release ${release}`),
  ];
  const hidden = await findHiddenTables(db, outbox);
  if (hidden.length > 0) {
    const { fact, remedy } = new HiddenRowsError(hidden);
    return { findings: [...findings, broken('row level security', fact, remedy)], isUnreadable: true };
  }
  const missing = await findMissingRights(db, outbox, partitions ? PARTITIONED_DOCTOR_RIGHTS : DOCTOR_RIGHTS);
  if (missing.length > 0) {
    const remedy = `As the owner of these tables, run: ${grantStatements(role, missing)} Or run the doctor as the role of the relays.`;
    findings.push(broken('rights', `the role ${role} lacks ${describeMissingRights(missing)}`, remedy));
  }
  try {
    const survey = await surveyOutbox(db, { cache, ranges: EVERYWHERE, outbox, ...(partitions && { partitions }) });
    const { life } = survey;
    const epochs = partitions && new Map([...survey.partitions].map(([name, each]) => [name, each.authority]));
    const authority = epochs ? [...epochs.values()].find((each) => each !== undefined) : survey.authority;
    const incarnation =
      life === undefined ? undefined : await readIncarnation(db, life, { outbox, answerMs: ANSWER_MS });
    // A relay whose role may see more wrote that into its row.
    const postgres = incarnation && completed(incarnation.postgres, authority?.postgres);
    if (postgres !== undefined && !hasLineage(postgres)) findings.push(lineageFinding(incarnation!.gaps));
    const backlog = await readBacklog(db, cache, outbox);
    findings.push(...backlogFindings(backlog));
    findings.push(...(await partitionFindings(db, cache, outbox)));
    findings.push(...layoutFindings(partitions?.length, survey.layouts));
    const names = await findCacheNames(db, cache, outbox, { onCluster: partitions !== undefined });
    findings.push(...(await otherBacklogFindings(db, names.others, outbox)));
    const { waiting, size } = backlog;
    return {
      findings,
      facts: { waiting, lagMs: backlog.lagMs ?? 0, size, authority, partitions: epochs, postgres, names },
    };
  } catch (error) {
    return { findings: [...findings, unreadableFinding(role, error, missing)], isUnreadable: true };
  }
}

/** Relays with this role notice every failover, and can't tell a primary that was succeeded from its successor (docs/protocol.md, rule 11). */
function lineageFinding(gaps: readonly LineageGap[]): Finding {
  return warn(
    'lineage',
    `${describeGaps(gaps)}: relays with this role guarantee no bound, unless they are told that the host fences`,
    lineageRemedy(gaps),
  );
}

/** The finding about the waiting events. `isRelayAlive`: undefined if unknown. `pollMs`: the longest pause of the relays. */
export function lagFinding(
  { waiting, lagMs, size }: OutboxFacts,
  { isRelayAlive, pollMs }: { readonly isRelayAlive: boolean | undefined; readonly pollMs: number },
): Finding {
  if (waiting === 0) return ok('lag', 'no event waits');
  const short = `events that wait: ${counted(waiting)}, the oldest for ${duration(lagMs)}`;
  const fact = `${short}; the outbox takes ${size}`;
  if (isRelayAlive === false) return broken('lag', `${fact}; no relay is alive to bump them`, 'Run a relay.');
  if (lagMs <= LAG_MAX_MS + pollMs) return ok('lag', short);
  if (isRelayAlive === undefined) {
    return broken('lag', fact, 'Mend Redis, run the doctor again, and read the log of the relay.');
  }
  return broken(
    'lag',
    `${fact}; the relays fail, or don't keep up`,
    'Read their logs. Run another relay, or give each a larger --batch.',
  );
}

function counted(events: number): string {
  return events > COUNTED_MAX ? `more than ${COUNTED_MAX}` : String(events);
}

/** Events of other caches in this outbox that no relay takes: a name that no relay has grows without a word. One query. */
async function otherBacklogFindings(db: Knex, others: readonly string[], outbox: OutboxOptions): Promise<Finding[]> {
  if (others.length === 0) return [];
  const at = qualifier(outbox);
  const rows = await query<{ readonly cache: string; readonly waiting: number; readonly lagMs: number }>(
    db,
    `select other.cache, waiting, extract(epoch from clock_timestamp() - oldest)::float * 1000 as "lagMs"
     from unnest(?::text[]) as other (cache)
     cross join lateral (
       select count(*)::int as waiting, min(recorded_at) as oldest
       from (select recorded_at from ${at}gencache_outbox as event
             where event.cache = other.cache and held_by is null order by xid, seq limit ?) as first
     ) as events
     where oldest < clock_timestamp() - ? * interval '1 millisecond' order by 1`,
    [others, COUNTED_MAX + 1, OTHER_LAG_MAX_MS],
  );
  return rows.map(({ cache, waiting, lagMs }) =>
    warn(
      'other caches',
      `no relay takes the events of the cache ${cache}: ${counted(waiting)}, the oldest for ${duration(lagMs)}`,
      `Run \`gencache relay --cache ${cache}\`. If no cache has that name, remove its triggers, and delete these rows of gencache_outbox.`,
    ),
  );
}

/** The events of one cache in the outbox: those for relays, those held by a migration, and the dead letters. */
interface CacheBacklog {
  readonly waiting: number;
  readonly lagMs: number | null;
  readonly size: string;
  readonly deadLetters: number;
  readonly heldByMigration: number;
  readonly heldMs: number | null;
}

async function readBacklog(db: Knex, cache: string, outbox: OutboxOptions): Promise<CacheBacklog> {
  const at = qualifier(outbox);
  const rows = await query<CacheBacklog>(
    db,
    `select
       (select count(*)::int from (
          select from ${at}gencache_outbox where cache = :cache and held_by is null limit :max) as waits) as waiting,
       (select extract(epoch from clock_timestamp() - min(recorded_at))::float * 1000 from ${at}gencache_outbox
        where cache = :cache and held_by is null) as "lagMs",
       pg_size_pretty(pg_total_relation_size(to_regclass(:relation))) as size,
       (select count(*)::int from ${at}gencache_dead_letter where cache = :cache) as "deadLetters",
       (select count(*)::int from ${at}gencache_outbox where cache = :cache and held_by is not null) as "heldByMigration",
       (select extract(epoch from clock_timestamp() - min(recorded_at))::float * 1000 from ${at}gencache_outbox
        where cache = :cache and held_by is not null) as "heldMs"`,
    { cache, max: COUNTED_MAX + 1, relation: `${at}gencache_outbox` },
  );
  return rows[0]!;
}

function backlogFindings({ deadLetters, heldByMigration, heldMs }: CacheBacklog): Finding[] {
  const findings: Finding[] = [];
  if (deadLetters > 0) {
    findings.push(
      warn(
        'dead letters',
        `events that no relay understood: ${deadLetters}; the relay bumped an ancestor scope for each`,
        'Run `gencache dead-letters list`. Once the cause is gone, run `gencache dead-letters retry`, or delete the rows.',
      ),
    );
  }
  if (heldByMigration > 0 && (heldMs ?? 0) > HELD_MAX_MS) {
    findings.push(
      warn(
        'held by migration',
        `events held by the lock of a migration: ${heldByMigration}, for ${Math.round((heldMs ?? 0) / 60_000)} min; relays bump them again and again`,
        'If no migration is running, run `knex migrate:unlock`.',
      ),
    );
  } else if (heldByMigration > 0) {
    findings.push(ok('held by migration', `events held by a running migration: ${heldByMigration}`));
  }
  return findings;
}

/** `missing`: as far as the role could look that up. */
function unreadableFinding(role: string, error: unknown, missing: readonly MissingRights[]): Finding {
  const remedy =
    missing.length > 0
      ? `As the owner of the outbox, run: ${grantStatements(role, missing)}`
      : (executeRemedy(error, role) ?? 'Grant the role the tables of the outbox.');
  return broken(
    'outbox',
    `the role ${role} can't read the outbox: ${explainError(error)}`,
    `${remedy} Or run the doctor as the role of the relays.`,
  );
}
