import { CHECK_NAME, looksMisspelt } from '../cache-names.js';
import type { OutboxFacts } from './outbox-findings.js';
import type { RedisFacts } from './redis-findings.js';
import { isAnotherServer } from './relay-findings.js';
import type { Watched } from './relay-watch.js';
import type { TriggerFacts } from './trigger-findings.js';

/** What was found out; what is missing could not be, or is not there. */
export interface Facts {
  /** Whether PostgreSQL could be asked, and the outbox read if there is one. */
  readonly readable: boolean;
  readonly outbox?: OutboxFacts | undefined;
  readonly triggers?: TriggerFacts | undefined;
  readonly redis?: RedisFacts | undefined;
  readonly watched?: Watched | undefined;
}

/** Of the ladder; `unknown` where a server could not be read, or is not the one that counts. 0 and 1 look alike from here. */
export type Step = 'unknown' | '0' | '1' | '2' | '3' | '4a';

/** What may be expected: 4b, strict commits, are possible beside others. */
export const EXPECTED = ['0', '1', '2', '3', '4', '4a', '4b'] as const;
export type Expected = (typeof EXPECTED)[number];

export interface LadderStanding {
  readonly step: Step;
  /** What can still be read. */
  readonly promise: string;
  /** What is vouched for, in ms, smallest first. */
  readonly boundsMs: readonly number[];
  /** Whether this Redis keeps quarantines, as strict commits want it (step 4b, from step 3 on). */
  readonly strict: boolean;
  readonly notCovered: readonly string[];
  /** How to get to the next step. */
  readonly next: string;
}

/** The highest step all of whose conditions hold. */
export function standingOf(facts: Facts, cache: string): LadderStanding {
  const step = stepOf(facts);
  const { promise, notCovered, next } = LADDER[step](facts, cache);
  return {
    step,
    promise,
    boundsMs: step === '4a' ? facts.watched!.boundsMs : [],
    strict: facts.outbox !== undefined && facts.redis?.primary === true && facts.redis.keeps,
    notCovered,
    next:
      step !== 'unknown' && isMisspelt(facts) ? `${CHECK_NAME} What is said here is about a cache of that name.` : next,
  };
}

/** Whether the name that was given is likely another cache's, misspelt: nobody has ever written, or read, under it. */
export function isMisspelt({ outbox, watched }: Facts): boolean {
  return outbox !== undefined && looksMisspelt(outbox.names) && watched?.used !== true;
}

export function reaches({ step, strict }: LadderStanding, expected: Expected): boolean {
  if (step === 'unknown') return false;
  if (expected === '4b') return strict && (step === '3' || step === '4a');
  return Number(step[0]) >= Number(expected[0]);
}

function stepOf({ readable, outbox, triggers, redis, watched }: Facts): Step {
  if (!readable || redis === undefined) return 'unknown';
  if (outbox === undefined) return '0';
  // An event that nobody polls for is no more than a bump that was meant.
  if (watched?.alive !== true) return isAnotherServer(outbox, redis) ? 'unknown' : '1';
  if (triggers === undefined || triggers.tables === 0 || !triggers.sound || !triggers.migrations) return '2';
  return watched.boundsMs.length > 0 ? '4a' : '3';
}

const WHOEVER = ['whoever writes without a bump, and whoever dies between commit and bump'];

const LADDER: Readonly<
  Record<Step, (facts: Facts, cache: string) => Pick<LadderStanding, 'promise' | 'notCovered' | 'next'>>
> = {
  unknown: ({ readable, redis }, cache) => {
    const promise = !readable
      ? 'what is in PostgreSQL could not be read'
      : redis === undefined
        ? 'Redis could not be asked, so whether anybody bumps is not known'
        : 'this Redis is not the one that relays bumped, so whether anybody bumps is not known';
    const next =
      readable && redis !== undefined
        ? 'See whether REDIS_URL (or --redis) is the server that caches and relays use. If it is, it restarted or took ' +
          `another one's place, and no relay runs: run \`gencache relay --cache ${cache}\`.`
        : 'See to what is broken above, and look again.';
    return { promise, notCovered: [], next };
  },
  '0': () => ({
    promise:
      'anything can still be read, for a TTL; step 1 where the application bumps after each commit, which can not be seen from here',
    notCovered: WHOEVER,
    next: 'Install the outbox (`gencache outbox install`), and write by `cache.transaction(...)` or with `bump(..., { trx })`.',
  }),
  '1': ({ outbox, triggers }, cache) => ({
    promise:
      'what a crash between commit and bump, or a forgotten writer, leaves can still be read, for a TTL' +
      (outbox?.authority === undefined ? '' : '; caches with `maxStalenessMs` read the source'),
    notCovered:
      (triggers?.tables ?? 0) > 0
        ? ['whoever writes without a bump: triggers record it, and it waits for a relay']
        : WHOEVER,
    next: `Run \`gencache relay --cache ${cache}\`, or \`startRelay\` in the application.`,
  }),
  '2': ({ triggers }) => ({
    promise: 'what a forgotten writer leaves can still be read, for a TTL',
    notCovered: [
      'whoever writes other than by `transaction` or with `bump(..., { trx })`: raw SQL, psql, other programs' +
        (triggers?.migrations === true ? '' : ', migrations'),
    ],
    next:
      triggers !== undefined && triggers.tables > 0
        ? 'See to the triggers above: `gencache triggers repair`, `installMigrationsTrigger`.'
        : 'Install triggers (`onChangeOf(...)`) on the tables that entries read, and `installMigrationsTrigger`.',
  }),
  '3': (facts) => ({
    promise: `what committed within the relay's lag (${Math.round(facts.outbox!.lagMs)} ms now) can still be read, and after a Redis failover until the relay has repaired`,
    notCovered: unseen(facts),
    next:
      'For a bound, give the cache a `maxStalenessMs`, and the relay the same as `--max-staleness`. The doctor finds the ' +
      'usual ones; name others by its own `--max-staleness`.',
  }),
  '4a': (facts) => ({
    promise: `nothing older than ${facts.watched!.boundsMs.join(', ')} ms can be read by caches with that \`maxStalenessMs\`, relay dead or alive; by others what step 3 says`,
    notCovered: unseen(facts),
    next:
      facts.redis?.keeps === true
        ? 'Nothing. Single commits may be strict: `transaction(..., { strict: true })`.'
        : 'Nothing; for strict commits (4b), set maxmemory-policy to noeviction.',
  }),
};

/** What triggers do not see (docs/protocol.md, rule 4). */
function unseen({ triggers }: Facts): string[] {
  const tables = triggers?.unwatched ?? [];
  return [
    'DDL outside migrations, DETACH PARTITION, and values that depend on time or session',
    'sessions with gencache.events off',
    ...(tables.length === 0 ? [] : [`tables without triggers, should an entry read them: ${tables.join(', ')}`]),
  ];
}
