import { once } from 'node:events';
import { endsWithin } from '../../async/ends-within.js';
import { installedRelease, OUTBOX_RELEASE } from '../../knex/install/install-outbox.js';
import { type Relay, type RelayStatus, startRelay } from '../../knex/relay/relay.js';
import type { Logger } from '../../telemetry/log.js';
import { redisStore } from '../../store/redis/redis-store.js';
import { type Arguments, CACHE } from '../arguments.js';
import { type Command, FAILED, OK } from '../command.js';
import { logLines } from '../log-lines.js';
import { CHECK_NAME, findCacheNames, looksMisspelt, misspelt } from '../cache-names.js';
import { currentRole, describeLacking, grants, lackingRights } from '../rights.js';
import { type Database, DATABASE, REDIS, redisTemplate, withDatabase } from '../servers.js';
import type { Terminal } from '../terminal.js';

const REPORT_EVERY_MS = 10_000;
/** The relay's own bound, and a while for its connections. */
const STOP_MS = 8_000;

/** Shown to whoever looks at PostgreSQL's sessions. */
export const RELAY_NAME = 'gencache-relay';

export const relay: Command = {
  words: ['relay'],
  summary: "Turns a cache's events into bumps, until SIGTERM or SIGINT",
  needs: '--cache NAME',
  options: {
    cache: CACHE,
    'max-staleness': { value: 'MS', multiple: true, help: 'a bound to vouch for: each `maxStalenessMs` of that cache' },
    poll: { value: 'MS', help: 'how long to wait when there was nothing to do; default: 50' },
    batch: { value: 'N', help: 'events in one transaction, about; default: 1000' },
    listen: { help: 'listens for hints, which `notifyRelays` switches on' },
    report: { value: 'MS', help: 'how often to write a report line, 0 for never; default: 10000' },
    verbose: { help: 'writes a line for each batch' },
    ...DATABASE,
    ...REDIS,
  },
  about:
    'Any number of relays share the work. It writes lines to stderr. It begins only where PostgreSQL answers and has an\n' +
    'outbox, else it exits with 1; servers that go away later, and Redis at any time, it waits for. On a signal it\n' +
    'finishes what it has claimed, within seconds, and exits with 0.',
  example: 'gencache relay --cache shop --max-staleness 5000',

  async run(args, terminal) {
    const stopping = new AbortController();
    // Once: a second signal ends the process as it would any other.
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stopping.abort());
    args.cache();
    return withDatabase(args, terminal, { name: RELAY_NAME, pool: { min: 1, max: 3 } }, async (database) => {
      const log = logLines(terminal, { verbose: args.flag('verbose') });
      const started = await start(args, terminal, database, log);
      if (started === undefined) return FAILED;
      const reportMs = args.number('report', { least: 0, most: 3_600_000 }) ?? REPORT_EVERY_MS;
      await relayUntil(stopping.signal, started, { cache: args.cache(), log, reportMs });
      return OK;
    });
  },
};

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
    listen: args.flag('listen'),
  };
  const redis = redisTemplate(args, terminal);
  // What triggers are there only the doctor needs to know.
  const lacking = (await lackingRights(db, outbox)).filter(({ table }) => table !== 'gencache_trigger');
  if (lacking.length > 0) {
    const role = await currentRole(db);
    terminal.err(
      `A relay works on the outbox's tables in PostgreSQL. The role ${role} may not: ${describeLacking(lacking)}. As their ` +
        `owner: ${grants(role, lacking)}`,
    );
    return undefined;
  }
  const release = await installedRelease(db, outbox);
  if (release === undefined || release < OUTBOX_RELEASE) {
    const found = release === undefined ? 'There is none' : `Its release is ${release}`;
    terminal.err(
      `A relay works on an outbox of release ${OUTBOX_RELEASE}. ${found}. Call \`installOutbox\` in a migration, or run ` +
        '`gencache outbox install`; --schema says where it is.',
    );
    return undefined;
  }
  // A role that may not read all that is needed here relays all the same.
  const names = await findCacheNames(db, options.cache, outbox).catch(() => undefined);
  if (names !== undefined && looksMisspelt(names)) {
    log.warn(`${options.cache}: ${misspelt(options.cache, names)}. ${CHECK_NAME}`);
  }
  return startRelay({ ...options, ...outbox, db, store: redisStore(redis), log });
}

async function relayUntil(
  stopping: AbortSignal,
  running: Relay,
  { cache, log, reportMs }: { readonly cache: string; readonly log: Logger; readonly reportMs: number },
): Promise<void> {
  let before = running.status;
  const report = () => {
    log.info(`${cache}: ${reportLine(running.status, before)}`);
    before = running.status;
  };
  const timer = reportMs === 0 ? undefined : setInterval(report, reportMs);
  log.info(`${cache}: relay ${process.pid} has begun`);
  if (!stopping.aborted) await once(stopping, 'abort');
  clearInterval(timer);
  log.info(`${cache}: stopping`);
  await endsWithin(STOP_MS, running.stop());
  report();
}

function reportLine(status: RelayStatus, before: RelayStatus): string {
  const { lagMs, trusted, events, scopes, deadLetters, repairs, failures } = status;
  return [
    `lag ${Math.round(lagMs)} ms`,
    `${events} events to ${scopes} scopes, ${events - before.events} since the last report`,
    `${repairs} repairs`,
    `${deadLetters} set aside`,
    `${failures} failures, ${failures - before.failures} since`,
    trusted ? 'trusted' : 'not trusted: nothing is relayed until the servers have been checked',
  ].join('; ');
}
