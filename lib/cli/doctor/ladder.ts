import { CHECK_NAME, looksMisspelt } from '../cache-names.js';
import type { OutboxFacts } from './outbox-findings.js';
import type { RedisFacts } from './redis-findings.js';
import type { RelayWatch } from './relay-watch.js';
import type { TriggerFacts } from './trigger-findings.js';

/** All facts about an installation. An absent part does not exist, or the doctor could not read it. */
export interface InstallationFacts {
  /** Whether PostgreSQL answered, and the role may read the outbox, if there is one. */
  readonly isReadable: boolean;
  readonly outbox?: OutboxFacts | undefined;
  readonly triggers?: TriggerFacts | undefined;
  /** Of a Cluster: what all partitions have in common. */
  readonly redis?: RedisFacts | undefined;
  readonly watch?: RelayWatch | undefined;
  /** Whether a partition's Redis is not the authoritative one. */
  readonly isElsewhere?: boolean;
}

/**
 * A step of the ladder; `unknown` if a server could not be read, or is not authoritative. Steps 0 and 1 differ in the
 * application alone, which the doctor does not see.
 */
export type Step = 'unknown' | '0' | '1' | '2' | '3' | '4a';

/**
 * The steps for `--expect`. Steps 4a and 4b build on step 3, and 4b does not need 4a. On step 2 bounds and strict commits
 * cover what `{ trx }` records, and nothing else.
 */
export const EXPECTED_STEPS = ['0', '1', '2', '3', '4', '4a', '4b'] as const;
export type ExpectedStep = (typeof EXPECTED_STEPS)[number];

export interface LadderStanding {
  readonly step: Step;
  /** The oldest data that readers can still get. */
  readonly promise: string;
  /** The bounds that a relay keeps, in ms, smallest first. */
  readonly boundsMs: readonly number[];
  /** Whether this Redis keeps quarantines, which strict commits need (step 4b, from step 3 on). */
  readonly strict: boolean;
  /** The changes that go unnoticed on this step. */
  readonly notCovered: readonly string[];
  /** The way to the next step. */
  readonly next: string;
}

/** The highest step whose conditions all hold. */
export function standingOf(facts: InstallationFacts, cache: string): LadderStanding {
  const step = stepOf(facts);
  const { promise, notCovered, next } = LADDER[step](facts, cache);
  return {
    step,
    promise,
    boundsMs: step === '4a' || step === '3' ? facts.watch!.boundsMs : [],
    strict: facts.outbox !== undefined && facts.redis?.isPrimary === true && facts.redis.keepsQuarantines,
    notCovered,
    next:
      step !== 'unknown' && isMisspelt(facts) ? `${CHECK_NAME} This report is about a cache of the given name.` : next,
  };
}

/** Whether the given name is probably a misspelt one: the outbox has only other names, and no reader has used it. */
export function isMisspelt({ outbox, watch }: InstallationFacts): boolean {
  return outbox !== undefined && looksMisspelt(outbox.names) && watch?.hasReaders !== true;
}

export function reaches({ step, strict }: LadderStanding, expected: ExpectedStep): boolean {
  if (step === 'unknown') return false;
  if (expected === '4b') return strict && (step === '3' || step === '4a');
  return Number(step[0]) >= Number(expected[0]);
}

function stepOf({ isReadable, outbox, triggers, redis, watch, isElsewhere }: InstallationFacts): Step {
  if (!isReadable || redis === undefined) return 'unknown';
  if (outbox === undefined) return '0';
  // An event without a relay is no more than an intended bump.
  if (watch?.isAlive !== true) return isElsewhere ? 'unknown' : '1';
  if (triggers === undefined || triggers.tables === 0 || !triggers.areSound || !triggers.coverMigrations) return '2';
  // A cache whose bound no relay keeps has no hits.
  return watch.boundsMs.length > 0 && watch.unkept.length === 0 ? '4a' : '3';
}

const UNBUMPED_WRITES = ['writes without a bump, and writes whose program dies between commit and bump'];

const LADDER: Readonly<
  Record<Step, (facts: InstallationFacts, cache: string) => Pick<LadderStanding, 'promise' | 'notCovered' | 'next'>>
> = {
  unknown: ({ isReadable, redis }, cache) => {
    const promise = !isReadable
      ? 'PostgreSQL could not be read'
      : redis === undefined
        ? 'Redis is unreachable, so the doctor can not tell whether a relay is alive'
        : 'this Redis is not the authoritative one, so the doctor can not tell whether a relay is alive';
    const next =
      isReadable && redis !== undefined
        ? 'Check that REDIS_URL (or --redis) is the server of the caches and relays. If it is, Redis restarted or was ' +
          `replaced, and no relay runs: run \`gencache relay --cache ${cache}\`.`
        : 'Mend the broken findings above, and run the doctor again.';
    return { promise, notCovered: [], next };
  },
  '0': () => ({
    promise:
      'readers may get data of any age up to the TTL; if the application bumps after each commit, which the doctor can not see, this is step 1',
    notCovered: UNBUMPED_WRITES,
    next: 'Install the outbox (`gencache outbox install`), and write by `cache.transaction(...)` or with `bump(..., { trx })`.',
  }),
  '1': ({ outbox, triggers }, cache) => ({
    promise:
      'for a TTL readers may get data from before a write without a bump, or from before a crash between commit and bump' +
      (outbox?.authority === undefined ? '' : '; caches with `maxStalenessMs` read the source'),
    notCovered:
      (triggers?.tables ?? 0) > 0
        ? ['writes without a bump: triggers record them, and their events wait for a relay']
        : UNBUMPED_WRITES,
    next: `Run \`gencache relay --cache ${cache}\`, or \`startRelay\` in the application.`,
  }),
  '2': ({ triggers }) => ({
    promise: 'for a TTL readers may get data from before a write without a bump',
    notCovered: [
      'writes without `transaction` or `bump(..., { trx })`: raw SQL, psql, other programs' +
        (triggers?.coverMigrations === true ? '' : ', migrations'),
    ],
    next:
      triggers !== undefined && triggers.tables > 0
        ? 'Mend the triggers above: `gencache triggers repair`, `installMigrationsTrigger`.'
        : 'Install triggers (`onChangeOf(...)`) on the tables that entries read, and `installMigrationsTrigger`.',
  }),
  '3': (facts, cache) => ({
    promise:
      `readers may get data from before a commit for the relay's lag (${Math.round(facts.outbox!.lagMs)} ms now), and after a Redis failover until the relay has repaired` +
      boundsOf(facts.watch!),
    notCovered: unseenChanges(facts),
    next:
      facts.watch!.unkept.length > 0
        ? `Give the relays each bound of the caches: \`gencache relay --cache ${cache} ${allBoundsOf(facts.watch!)}\`.`
        : 'For a bound, give the cache a `maxStalenessMs`, and the relay the same as `--max-staleness`. The doctor looks for ' +
          'the usual bounds and those that readers ask for in vain; name any other to it by --max-staleness.',
  }),
  '4a': (facts) => ({
    promise: `readers with \`maxStalenessMs\` get nothing older than ${facts.watch!.boundsMs.join(', ')} ms, relay dead or alive; other readers have step 3`,
    notCovered: unseenChanges(facts),
    next:
      facts.redis?.keepsQuarantines === true
        ? 'This is the highest step. Single commits may be strict: `transaction(..., { strict: true })`.'
        : 'This is the highest step. For strict commits (4b), set maxmemory-policy to noeviction.',
  }),
};

/** The readers that have another promise than step 3, if a relay keeps some bounds and not all that are asked for. */
function boundsOf({ boundsMs, unkept }: RelayWatch): string {
  if (unkept.length === 0) return '';
  const kept = boundsMs.length === 0 ? '' : `; with \`maxStalenessMs\` ${boundsMs.join(', ')}, nothing older than that`;
  return `${kept}; with \`maxStalenessMs\` ${unkept.map(({ boundMs }) => boundMs).join(', ')}, which no relay keeps, they read the source`;
}

function allBoundsOf({ boundsMs, unkept }: RelayWatch): string {
  const all = [...boundsMs, ...unkept.map(({ boundMs }) => boundMs)].sort((a, b) => a - b);
  return all.map((boundMs) => `--max-staleness ${boundMs}`).join(' ');
}

/** Changes that triggers do not see (docs/protocol.md, rule 4). */
function unseenChanges({ triggers }: InstallationFacts): string[] {
  const tables = triggers?.unwatched ?? [];
  return [
    'DDL outside migrations, DETACH PARTITION, and values that depend on time or session',
    'sessions with gencache.events off',
    ...(tables.length === 0 ? [] : [`tables without triggers, if an entry reads them: ${tables.join(', ')}`]),
  ];
}
