import type { OutboxFacts } from './outbox.js';
import { broken, type Finding, ok, warn } from './finding.js';
import type { RedisFacts } from './redis.js';
import type { Watched } from './relay-watch.js';

/** Whether somebody bumps what is recorded, and on the servers that count (protocol rules 10 and 11). */
export function describeRelay(
  cache: string,
  outbox: OutboxFacts,
  redis: RedisFacts,
  watched: Watched,
  recorded: boolean,
): Finding[] {
  const run = `Run \`gencache relay --cache ${cache}\`, or \`startRelay\` in the application.`;
  if (watched.alive) return [ok('relay', 'one is alive'), incarnations(outbox, redis, watched)];
  const { counted } = outbox;
  if (counted === undefined && watched.mark === undefined) {
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
  const findings = [broken('relay', `none is alive: ${silent}`, `${run} If one runs, read its log.`)];
  if (counted !== undefined && redis.incarnation !== undefined && counted.redis !== redis.incarnation) {
    findings.push(otherServer(counted.redis, redis.incarnation));
  }
  return findings;
}

/** Row, INFO and mark are to name one server. */
function incarnations({ counted, postgres }: OutboxFacts, redis: RedisFacts, { mark }: Watched): Finding {
  if (counted !== undefined && redis.incarnation !== undefined && counted.redis !== redis.incarnation) {
    return otherServer(counted.redis, redis.incarnation);
  }
  const message = 'the incarnations that count, those of the servers, and the mark differ';
  if (
    counted === undefined ||
    counted.postgres !== postgres ||
    mark?.startsWith(`${counted.redis} ${counted.postgres}`) !== true
  ) {
    return warn(
      'incarnation',
      `${message}: a server restarted, or another one took its place`,
      'Look again: a relay repairs that within seconds.',
    );
  }
  return ok('incarnation', 'the servers are those that count');
}

function otherServer(counted: string, found: string): Finding {
  return broken(
    'incarnation',
    `the relay bumps ${short(counted)}, and this Redis is ${short(found)}`,
    'See whether --redis is the server that caches and relays use. After a failover, a relay repairs that within seconds.',
  );
}

/** As much of `<run_id>.<master_replid>` as tells servers apart. */
function short(incarnation: string): string {
  return incarnation
    .split('.')
    .map((id) => id.slice(0, 8))
    .join('.');
}
