import { clearInterval, setInterval } from '../../async/scheduling.js';
import { once } from 'node:events';
import { endsWithin } from '../../async/ends-within.js';
import { installedRelease, OUTBOX_RELEASE } from '../../knex/install/install-outbox.js';
import { type Relay, startRelay } from '../../knex/relay/relay.js';
import { someOf } from '../../knex/relay/relay-log.js';
import type { RelayStatus } from '../../knex/relay/relay-status.js';
import type { PartitionedStore, Store } from '../../ports/store.js';
import { redisStore } from '../../store/redis/redis-store.js';
import type { Logger } from '../../telemetry/log.js';
import type { Arguments } from '../arguments.js';
import { describeMisspelling, findCacheNames, looksMisspelt, misspellingRemedy } from '../cache-names.js';
import { type Command, FAILED, OK } from '../command.js';
import { type Database, withDatabase } from '../database.js';
import { logLines } from '../log-lines.js';
import {
  currentRole,
  describeMissingRights,
  findMissingRights,
  grantStatements,
  PARTITIONED_RELAY_RIGHTS,
  RELAY_RIGHTS,
} from '../../knex/outbox/missing-rights.js';
import { CACHE_OPTION, DATABASE_OPTIONS, REDIS_OPTIONS } from '../option.js';
import { redisTemplate, type RedisTemplate } from '../redis.js';
import type { Terminal } from '../terminal.js';

const REPORT_EVERY_MS = 10_000;
/** The relay's own limit for its end, and the time to close its connections. */
const STOP_MS = 8_000;

/** A host that scaled to zero takes some seconds to wake, half a minute at most: that is no failure, in ms. */
const CONNECT_MS = 30_000;

/** The application name of its sessions in PostgreSQL. */
const SESSION_NAME = 'gencache-relay';

export const relayCommand: Command = {
  words: ['relay'],
  summary: "Turns a cache's events into bumps, until SIGTERM or SIGINT",
  needs: '--cache NAME',
  options: {
    cache: CACHE_OPTION,
    'max-staleness': {
      value: 'MS',
      multiple: true,
      help: 'a bound to keep: the `maxStalenessMs` of caches with this name',
    },
    poll: { value: 'MS', help: 'pause after a poll that found no event; default: 50' },
    batch: { value: 'N', help: 'events in one transaction, roughly; default: 1000' },
    'backlog-max': {
      value: 'MS',
      help: 'after this time away, one bump of everything comes before events that old; 0 for never; default: 30000',
    },
    listen: { help: 'listens for the hints that `notifyRelays` switches on' },
    fenced: { help: 'the host ends a primary of PostgreSQL that was succeeded: bounds do without its timeline' },
    report: { value: 'MS', help: 'interval of the report lines, 0 for none; default: 10000' },
    verbose: { help: 'writes a line for each batch' },
    ...DATABASE_OPTIONS,
    ...REDIS_OPTIONS,
  },
  about:
    'Any number of relays share the work. The log lines go to stderr. The command exits with 1 if PostgreSQL is away or has\n' +
    'no outbox at its start; it waits for a server that goes away later, and for Redis at any time. After a signal it\n' +
    'finishes the events it has claimed, within seconds, and exits with 0.',
  example: 'gencache relay --cache shop --max-staleness 5000',

  async run(args, terminal) {
    const stopping = new AbortController();
    // Once: a second signal ends the process at once.
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stopping.abort());
    args.cache();
    const work = async (database: Database) => {
      const log = logLines(terminal, { verbose: args.flag('verbose') });
      const relay = await start(args, terminal, database, log);
      if (relay === undefined) return FAILED;
      const reportMs = args.number('report', { least: 0, most: 3_600_000 }) ?? REPORT_EVERY_MS;
      await relayUntil(stopping.signal, relay, { cache: args.cache(), log, reportMs });
      return OK;
    };
    const sessions = { name: SESSION_NAME, pool: { min: 1, max: 3 }, connectMs: CONNECT_MS };
    return withDatabase(args, terminal, work, sessions);
  },
};

/** Starts the relay, or prints why it can't work. */
async function start(
  args: Arguments,
  terminal: Terminal,
  { db, outbox }: Database,
  log: Logger,
): Promise<Relay | undefined> {
  const options = {
    cache: args.cache(),
    maxStalenessMs: args.numbers('max-staleness', { least: 100, most: 3_600_000 }),
    pollMs: args.number('poll', { least: 1, most: 3_600_000 }) ?? 50,
    batchMax: args.number('batch', { least: 1, most: 100_000 }) ?? 1_000,
    backlogMaxMs: args.number('backlog-max', { least: 0, most: 3_600_000 }) ?? 30_000,
    listen: args.flag('listen'),
    fenced: args.flag('fenced'),
  };
  const template = redisTemplate(args, terminal);
  const onCluster = 'cluster' in template;
  const rights = onCluster ? PARTITIONED_RELAY_RIGHTS : RELAY_RIGHTS;
  const missing = await findMissingRights(db, outbox, { ...rights, gencache_release: ['SELECT'] });
  if (missing.length > 0) {
    const role = await currentRole(db);
    terminal.err(
      `The role ${role} lacks rights that a relay needs: ${describeMissingRights(missing)}. As the owner of these tables, ` +
        `run: ${grantStatements(role, missing)}`,
    );
    return undefined;
  }
  const release = await installedRelease(db, outbox);
  if (release === undefined || release < OUTBOX_RELEASE) {
    const fact = release === undefined ? 'There is no outbox' : `The outbox has release ${release}`;
    terminal.err(
      `${fact}; a relay needs an outbox of release ${OUTBOX_RELEASE}. Call \`installOutbox\` in a migration, or run ` +
        '`gencache outbox install`; name the schema of the outbox by --schema.',
    );
    return undefined;
  }
  // A role that may not read all of these tables can relay nevertheless.
  const names = await findCacheNames(db, options.cache, outbox, { onCluster }).catch(() => undefined);
  if (names !== undefined && looksMisspelt(names)) {
    log.warn(`${options.cache}: ${describeMisspelling(options.cache, names)}. ${misspellingRemedy(names)}`);
  }
  return startRelay({ ...options, ...outbox, db, store: storeOf(template), log });
}

function storeOf(template: RedisTemplate): Store | PartitionedStore {
  if ('redis' in template) return redisStore(template.redis);
  const { cluster, partitions } = template;
  return redisStore(cluster, partitions === undefined ? {} : { partitions });
}

async function relayUntil(
  stopping: AbortSignal,
  relay: Relay,
  { cache, log, reportMs }: { readonly cache: string; readonly log: Logger; readonly reportMs: number },
): Promise<void> {
  let before = relay.status;
  const report = () => {
    log.info(`${cache}: ${reportLine(relay.status, before)}`);
    before = relay.status;
  };
  const timer = reportMs === 0 ? undefined : setInterval(report, reportMs);
  log.info(`${cache}: relay ${process.pid} has started`);
  if (!stopping.aborted) await once(stopping, 'abort');
  clearInterval(timer);
  log.info(`${cache}: relay is stopping`);
  await endsWithin(STOP_MS, relay.stop());
  report();
}

function reportLine(status: RelayStatus, before: RelayStatus): string {
  const { lagMs, trusted, events, scopes, deadLetters, repairs, failures, partitions } = status;
  return [
    `lag ${Math.round(lagMs)} ms`,
    `${events} events to ${scopes} scopes, ${events - before.events} since the last report`,
    `${repairs} repairs`,
    `${deadLetters} dead letters`,
    `${failures} failures, ${failures - before.failures} since the last report`,
    trusted
      ? 'trusted'
      : `not trusted${partitions ? `, in ${someOf(partitions.untrusted)}` : ''}: the relay waits until it has checked the servers`,
    ...(partitions && partitions.owing.length > 0 ? [`bumps are owed by ${someOf(partitions.owing)}`] : []),
  ].join('; ');
}
