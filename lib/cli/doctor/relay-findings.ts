import { CHECK_NAME } from '../cache-names.js';
import type { OutboxFacts } from './outbox-findings.js';
import { broken, type Finding, ok, warn } from './finding.js';
import type { RedisFacts } from './redis-findings.js';
import type { Watched } from './relay-watch.js';

/** Whether somebody bumps what is recorded, and on the servers that count (docs/protocol.md, rules 10 and 11). */
export function describeRelay(
  cache: string,
  outbox: OutboxFacts,
  redis: RedisFacts,
  watched: Watched,
  { recorded, misspelt }: { readonly recorded: boolean; readonly misspelt: boolean },
): Finding[] {
  const run = misspelt ? CHECK_NAME : `Run \`gencache relay --cache ${cache}\`, or \`startRelay\` in the application.`;
  if (watched.alive) return [ok('relay', 'one is alive'), incarnations(outbox, redis, watched)];
  const { authority } = outbox;
  if (authority === undefined && watched.mark === undefined) {
    // Nothing but what a crash leaves behind needs one, until triggers record.
    const message = 'none has ever run: what a crash leaves in the outbox stays there';
    return [
      recorded
        ? broken('relay', 'none has ever run: what triggers record is not bumped', run)
        : warn('relay', message, run),
    ];
  }
  const silent =
    watched.silentMs === undefined
      ? 'it is not known since when'
      : `silent for ${Math.round(watched.silentMs / 1_000)} s`;
  if (isAnotherServer(outbox, redis)) {
    return [
      broken('relay', `none is alive on this Redis: ${silent}`, 'See the next row first.'),
      otherServer(authority!.redis, redis.incarnation!),
    ];
  }
  return [broken('relay', `none is alive: ${silent}`, `${run} If one runs, read its log.`)];
}

/** Whether the Redis that counts is another one than this: it restarted, or this one is not the caches'. */
export function isAnotherServer({ authority }: Pick<OutboxFacts, 'authority'>, { incarnation }: RedisFacts): boolean {
  return authority !== undefined && incarnation !== undefined && authority.redis !== incarnation;
}

export function unvouched(cache: string, boundMs: number): Finding {
  const remedy = `Run \`gencache relay --cache ${cache} --max-staleness ${boundMs}\`: until then such caches read the source.`;
  return broken('bound', `nobody vouches for ${boundMs} ms`, remedy);
}

/** The bounds that are vouched for; and, where one relayed once and is gone, what that means for readers. */
export function describeBounds(
  cache: string,
  outbox: OutboxFacts,
  { alive, boundsMs }: Watched,
  wantedMs: readonly number[],
): Finding[] {
  const findings: Finding[] = [];
  if (alive && boundsMs.length > 0) findings.push(ok('bound', `vouched for: ${boundsMs.join(', ')} ms`));
  findings.push(
    ...wantedMs.filter((bound) => !alive || !boundsMs.includes(bound)).map((bound) => unvouched(cache, bound)),
  );
  if (alive || outbox.authority === undefined || wantedMs.length > 0) return findings;
  const remedy = 'Run a relay with `--max-staleness`, the same as the `maxStalenessMs` of each cache of this name.';
  const left =
    boundsMs.length > 0
      ? `nobody vouches any more for ${boundsMs.join(', ')} ms: when its key has expired, a cache with that`
      : 'nobody vouches for one: a cache with';
  return [broken('bound', `${left} \`maxStalenessMs\` reads the source, and the database carries that load`, remedy)];
}

/** Row, INFO and mark are to name one server. */
function incarnations({ authority, postgres }: OutboxFacts, redis: RedisFacts, { mark }: Watched): Finding {
  if (isAnotherServer({ authority }, redis)) return otherServer(authority!.redis, redis.incarnation!);
  const message = 'the incarnations that count, those of the servers, and the mark differ';
  if (
    authority === undefined ||
    authority.postgres !== postgres ||
    mark?.startsWith(`${authority.redis} ${authority.postgres}`) !== true
  ) {
    return warn(
      'incarnation',
      `${message}: a server restarted, or another one took its place`,
      'Look again: a relay repairs that within seconds.',
    );
  }
  return ok('incarnation', 'the servers are those that count');
}

function otherServer(authority: string, found: string): Finding {
  return broken(
    'incarnation',
    `the relay bumps ${short(authority)}, and this Redis is ${short(found)}`,
    'See whether REDIS_URL (or --redis) is the server that caches and relays use. After a restart or a failover, a relay repairs that within seconds.',
  );
}

/** As much of `<run_id>.<master_replid>` as tells servers apart. */
function short(incarnation: string): string {
  return incarnation
    .split('.')
    .map((id) => id.slice(0, 8))
    .join('.');
}
