/**
 * `gencache doctor`: checks PostgreSQL, then Redis, then whether a relay is alive, and names the step of the ladder whose
 * conditions all hold, which may be lower than the intended step.
 *
 * It changes nothing. It takes 3 s if no relay is alive, since only a wait shows silence.
 */
import type { Redis } from 'ioredis';
import { describe } from '../../errors/describe.js';
import type { Arguments } from '../arguments.js';
import { describeMisspelling, misspellingRemedy } from '../cache-names.js';
import { type Command, FAILED, OK } from '../command.js';
import { type Database, withDatabase } from '../database.js';
import { explainError } from '../explain-error.js';
import { CACHE_OPTION, DATABASE_OPTIONS, JSON_OPTION, REDIS_OPTIONS } from '../option.js';
import { withRedis } from '../redis.js';
import { UsageError } from '../usage-error.js';
import { broken, type Finding, warn } from './finding.js';
import {
  EXPECTED_STEPS,
  type ExpectedStep,
  type InstallationFacts,
  isMisspelt,
  reaches,
  standingOf,
} from './ladder.js';
import { checkOutbox, lagFinding, type OutboxFacts } from './outbox-findings.js';
import { checkPostgres } from './postgres-findings.js';
import { checkRedis, type RedisFacts } from './redis-findings.js';
import { boundFindings, isAnotherServer, missingBoundFinding, relayFindings } from './relay-findings.js';
import { type RelayWatch, watchRelay } from './relay-watch.js';
import { type DoctorReport, toJson, toText } from './report.js';
import { checkCacheTriggers, type TriggerFacts } from './trigger-findings.js';

export const doctorCommand: Command = {
  words: ['doctor'],
  summary: 'Names the step of the ladder that an installation stands on, and the next thing to do',
  needs: '--cache NAME',
  options: {
    cache: CACHE_OPTION,
    expect: { value: 'STEP', help: `exits with 1 below this step: ${EXPECTED_STEPS.join(', ')}` },
    'max-staleness': {
      value: 'MS',
      multiple: true,
      help: 'a bound that a relay must keep; default: looks for the usual bounds',
    },
    poll: {
      value: 'MS',
      help: 'the longest `--poll` of the relays: a relay that pauses for so long is alive; default: 50',
    },
    json: JSON_OPTION,
    ...DATABASE_OPTIONS,
    ...REDIS_OPTIONS,
  },
  about: 'Exits with 0 if no finding is broken and the step is at least the expected one. It changes nothing.',
  example: 'gencache doctor --cache shop --expect 3',

  async run(args, terminal) {
    const cache = args.cache();
    const expected = expectedStep(args);
    const wantedMs = args.numbers('max-staleness', { least: 100, most: 3_600_000 });
    const pollMs = args.number('poll', { least: 1, most: 3_600_000 }) ?? 50;
    const source = await withDatabase(args, terminal, (database) => checkSource(database, cache), {
      name: 'gencache-doctor',
    });
    const store = await withRedis(args, terminal, (redis) =>
      checkStore(redis, { cache, source, boundsMs: wantedMs, pollMs }),
    ).catch((error: unknown): StoreCheck => {
      if (error instanceof UsageError) throw error;
      const remedy = 'Check REDIS_URL (or --redis), the server and the network.';
      return { findings: [broken('Redis', `the server is unreachable: ${explainError(error)}`, remedy)] };
    });
    const facts: InstallationFacts = { ...source, ...store };
    const findings = [...source.findings, ...store.findings, ...combinedFindings(cache, facts, { wantedMs, pollMs })];
    const standing = standingOf(facts, cache);
    const reached = expected === undefined || reaches(standing, expected);
    const isSound = findings.every(({ status }) => status !== 'broken');
    const report: DoctorReport = { cache, findings, standing, expected, reached, ok: isSound && reached };
    terminal.out(args.flag('json') ? toJson(report) : toText(report));
    return report.ok ? OK : FAILED;
  },
};

/** The findings and facts that PostgreSQL alone gives. */
interface SourceCheck {
  readonly findings: readonly Finding[];
  readonly isReadable: boolean;
  readonly outbox?: OutboxFacts | undefined;
  readonly triggers?: TriggerFacts | undefined;
}

async function checkSource({ db, outbox }: Database, cache: string): Promise<SourceCheck> {
  let server;
  try {
    server = await checkPostgres(db);
  } catch (error) {
    const remedy = 'Check DATABASE_URL (or --database), the server and the network.';
    const finding = broken('PostgreSQL', `the server is unreachable: ${explainError(error)}`, remedy);
    return { isReadable: false, findings: [finding] };
  }
  // Its unlogged table can't be read there, and no relay works there.
  if (server.isStandby) return { isReadable: false, findings: server.findings };
  const checked = await checkOutbox(db, outbox, { cache, role: server.role });
  const findings = [...server.findings, ...checked.findings];
  if (checked.facts === undefined) return { isReadable: checked.isUnreadable !== true, findings };
  const triggers = await checkCacheTriggers(db, cache, outbox);
  return {
    isReadable: true,
    findings: [...findings, ...triggers.findings],
    outbox: checked.facts,
    triggers: triggers.facts,
  };
}

/** The findings and facts that Redis alone gives. */
interface StoreCheck {
  readonly findings: readonly Finding[];
  readonly redis?: RedisFacts | undefined;
  readonly watch?: RelayWatch | undefined;
}

async function checkStore(
  redis: Redis,
  {
    cache,
    source: { outbox },
    boundsMs,
    pollMs,
  }: {
    readonly cache: string;
    readonly source: SourceCheck;
    readonly boundsMs: readonly number[];
    readonly pollMs: number;
  },
): Promise<StoreCheck> {
  const { findings, facts } = await checkRedis(redis);
  // Without an outbox a relay has no work.
  if (outbox === undefined) return { findings, redis: facts };
  const watch = await watchRelay(redis, { cache, incarnation: facts.incarnation, boundsMs, pollMs });
  return { findings, redis: facts, watch };
}

/** The findings that need both servers. Without Redis, only the finding about waiting events is left. */
function combinedFindings(
  cache: string,
  facts: InstallationFacts,
  { wantedMs, pollMs }: { readonly wantedMs: readonly number[]; readonly pollMs: number },
): Finding[] {
  const { outbox, triggers, redis, watch } = facts;
  if (outbox === undefined) {
    return facts.isReadable ? wantedMs.map((boundMs) => missingBoundFinding(cache, boundMs)) : [];
  }
  const findings: Finding[] = [];
  // With triggers, the finding about its namespaces tells.
  if (isMisspelt(facts) && (outbox.names.fault === undefined || (triggers?.tables ?? 0) === 0)) {
    const finding = outbox.names.fault === undefined ? warn : broken;
    findings.push(finding('cache', describeMisspelling(cache, outbox.names), misspellingRemedy(outbox.names)));
  }
  if (redis === undefined || watch === undefined)
    return [...findings, lagFinding(outbox, { pollMs, isRelayAlive: undefined })];
  const relay = {
    ...{ cache, outbox, redis, watch },
    hasTriggers: (triggers?.tables ?? 0) > 0,
    isMisspelt: isMisspelt(facts),
  };
  findings.push(...relayFindings(relay));
  // The relays of the authoritative server, and their bounds, are unknown on this one.
  if (!watch.isAlive && isAnotherServer(outbox, redis))
    return [...findings, lagFinding(outbox, { pollMs, isRelayAlive: undefined })];
  return [...findings, lagFinding(outbox, { pollMs, isRelayAlive: watch.isAlive }), ...boundFindings(relay, wantedMs)];
}

function expectedStep(args: Arguments): ExpectedStep | undefined {
  const text = args.text('expect');
  if (text === undefined) return undefined;
  const expected = EXPECTED_STEPS.find((step) => step === text);
  if (expected !== undefined) return expected;
  throw new UsageError(
    `--expect must be a step of the ladder (${EXPECTED_STEPS.join(', ')}), but got ${describe(text)}. Leave it out to expect no step.`,
  );
}
