import type { Authority } from '../../knex/outbox/survey.js';
import { CHECK_NAME } from '../cache-names.js';
import { broken, type Finding, ok, warn } from './finding.js';
import type { OutboxFacts } from './outbox-findings.js';
import type { RedisFacts } from './redis-findings.js';
import type { RelayWatch } from './relay-watch.js';

/** The facts from which the findings about relays follow. */
export interface RelayFacts {
  readonly cache: string;
  readonly outbox: OutboxFacts;
  readonly redis: RedisFacts;
  readonly watch: RelayWatch;
  /** Whether triggers record events for the cache. */
  readonly hasTriggers: boolean;
  /** Whether the name of the cache looks misspelt. */
  readonly isMisspelt: boolean;
}

/** Whether a relay bumps the recorded events, on the authoritative servers (docs/protocol.md, rules 10 and 11). */
export function relayFindings({ cache, outbox, redis, watch, hasTriggers, isMisspelt }: RelayFacts): Finding[] {
  const remedy = isMisspelt
    ? CHECK_NAME
    : `Run \`gencache relay --cache ${cache}\`, or \`startRelay\` in the application.`;
  if (watch.isAlive) return [ok('relay', 'a relay is alive'), authorityFinding(outbox, redis, watch)];
  const { authority } = outbox;
  if (authority === undefined && watch.mark === undefined) {
    // Without triggers only a crash leaves events in the outbox.
    return [
      hasTriggers
        ? broken('relay', 'no relay has ever run: the events that triggers record stay unbumped', remedy)
        : warn('relay', 'no relay has ever run: events that a crash leaves in the outbox stay unbumped', remedy),
    ];
  }
  const silence =
    watch.silentMs === undefined
      ? 'the time of its last check is unknown'
      : `the last check was ${Math.round(watch.silentMs / 1_000)} s ago`;
  if (isAnotherServer(outbox, redis)) {
    return [
      broken('relay', `no relay is alive on this Redis: ${silence}`, 'See the finding "authority" first.'),
      otherServerFinding(authority!, watch),
    ];
  }
  return [broken('relay', `no relay is alive: ${silence}`, `${remedy} If a relay runs, read its log.`)];
}

/** Whether this Redis is not the authoritative one: it has restarted, or the caches use another server. */
export function isAnotherServer({ authority }: Pick<OutboxFacts, 'authority'>, { incarnation }: RedisFacts): boolean {
  return authority !== undefined && incarnation !== undefined && authority.redis !== incarnation;
}

/** The finding about a bound that the user or readers ask for and no relay keeps. `askedMs`: see `UnkeptBound`. */
export function missingBoundFinding(cache: string, boundMs: number, askedMs?: number): Finding {
  const readers =
    askedMs === undefined ? '' : `; readers asked for it ${Math.round(askedMs / 1_000)} s ago, and read the source`;
  return broken(
    'bound',
    `no relay keeps the bound of ${boundMs} ms${readers}`,
    `Run \`gencache relay --cache ${cache} --max-staleness ${boundMs}\`: until then caches with this \`maxStalenessMs\` read the source.`,
  );
}

/** The bounds that a relay keeps, and those it does not. */
export function boundFindings(
  { cache, outbox, watch: { isAlive, boundsMs, unkept } }: Pick<RelayFacts, 'cache' | 'outbox' | 'watch'>,
  wantedMs: readonly number[],
): Finding[] {
  const findings: Finding[] = [];
  if (isAlive && boundsMs.length > 0) findings.push(ok('bound', `a relay keeps the bounds ${boundsMs.join(', ')} ms`));
  const missing = isAlive ? unkept : wantedMs.map((boundMs) => ({ boundMs, askedMs: undefined }));
  findings.push(...missing.map(({ boundMs, askedMs }) => missingBoundFinding(cache, boundMs, askedMs)));
  if (isAlive || outbox.authority === undefined || wantedMs.length > 0) return findings;
  const fact =
    boundsMs.length > 0
      ? `no relay renews the bound of ${boundsMs.join(', ')} ms any more: after the expiry of its key a cache with this`
      : 'no relay keeps a bound: a cache with';
  return [
    broken(
      'bound',
      `${fact} \`maxStalenessMs\` reads the source, and the database carries that load`,
      'Run a relay with `--max-staleness`, the same as the `maxStalenessMs` of each cache with this name.',
    ),
  ];
}

/** The row in PostgreSQL, INFO and the mark must name the same servers. */
function authorityFinding({ authority, postgres }: OutboxFacts, redis: RedisFacts, watch: RelayWatch): Finding {
  const { mark } = watch;
  if (isAnotherServer({ authority }, redis)) return otherServerFinding(authority!, watch);
  if (
    authority === undefined ||
    authority.postgres !== postgres ||
    mark?.startsWith(`${authority.redis} ${authority.postgres}`) !== true
  ) {
    return warn(
      'authority',
      'the authoritative servers, the present ones and the mark differ: a server restarted, or another one took its place',
      'Run the doctor again: a relay repairs this within seconds.',
    );
  }
  return ok('authority', 'both servers are authoritative');
}

/** Two relays on two servers take authority in turns of five seconds: each has a recent trace. */
const CONTEST_MS = 15_000;

function otherServerFinding({ sinceMs }: Authority, { silentMs }: RelayWatch): Finding {
  if (silentMs !== undefined && silentMs < CONTEST_MS && sinceMs < CONTEST_MS) {
    return broken(
      'authority',
      'another relay of this cache uses another Redis: it made that one authoritative ' +
        `${Math.round(sinceMs / 1_000)} s ago, and a relay checked this one ${Math.round(silentMs / 1_000)} s ago`,
      'Give all relays and caches of one name the same REDIS_URL, or each Redis a cache name of its own. After a failover run the doctor again on the new primary.',
    );
  }
  return broken(
    'authority',
    'this Redis is not the authoritative one: it restarted or was replaced, or the relays use another Redis',
    'Check that REDIS_URL (or --redis) is the server of the caches and relays. After a restart or a failover a relay repairs this within seconds.',
  );
}
