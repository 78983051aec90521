/**
 * `gencache doctor`: checks PostgreSQL, then Redis, then whether a relay is alive, and names the step of the ladder whose
 * conditions all hold, which may be lower than the intended step.
 *
 * It changes nothing. It takes 3 s if no relay is alive, since only a wait shows silence.
 */
import { describe } from '../../errors/describe.js';
import type { Arguments } from '../arguments.js';
import { describeMisspelling, misspellingRemedy } from '../cache-names.js';
import { type Command, FAILED, OK } from '../command.js';
import { type Database, withDatabase } from '../database.js';
import { explainError } from '../explain-error.js';
import { CACHE_OPTION, DATABASE_OPTIONS, JSON_OPTION, REDIS_OPTIONS } from '../option.js';
import { tlsRemedy } from '../../store/redis/tls-remedy.js';
import { redisTemplate, usesTls } from '../redis.js';
import { UsageError } from '../usage-error.js';
import { checkCommands } from './command-findings.js';
import { broken, type Finding, findingsOfEach, warn } from './finding.js';
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
import { partitionNames, type PlacedPartition, type Primary, withRedisServers } from './redis-servers.js';
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
    const template = redisTemplate(args, terminal);
    const names = partitionNames(template, cache);
    const source = await withDatabase(args, terminal, (database) => checkSource(database, cache, names), {
      name: 'gencache-doctor',
    });
    const store = await withRedisServers(template, cache, (partitions, primaries) =>
      checkStore(partitions, primaries, { source, boundsMs: wantedMs, pollMs }),
    ).catch((error: unknown): StoreCheck => ({ findings: [unreachableFinding(error, usesTls(template))] }));
    const { partitions } = store;
    const facts: InstallationFacts = { ...source, ...factsOf(source, store) };
    const combined = combinedFindings(cache, facts, { partitions, wantedMs, pollMs });
    const findings = [...source.findings, ...store.findings, ...combined];
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

async function checkSource(
  { db, outbox }: Database,
  cache: string,
  partitions: readonly string[] | undefined,
): Promise<SourceCheck> {
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
  const checked = await checkOutbox(db, outbox, { cache, role: server.role, partitions });
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

/** The findings and facts that Redis alone gives, of each partition of the cache. */
interface StoreCheck {
  readonly findings: readonly Finding[];
  /** Undefined if a primary could not be asked. */
  readonly partitions?: readonly PartitionFacts[] | undefined;
}

interface PartitionFacts {
  readonly name: string;
  readonly redis: RedisFacts;
  /** Undefined without an outbox: a relay has no work then. */
  readonly watch: RelayWatch | undefined;
}

interface Watched {
  readonly source: SourceCheck;
  readonly boundsMs: readonly number[];
  readonly pollMs: number;
}

async function checkStore(
  partitions: readonly PlacedPartition[],
  primaries: readonly Primary[],
  { source: { outbox }, boundsMs, pollMs }: Watched,
): Promise<StoreCheck> {
  const isInCluster = primaries[0]?.name !== '';
  const checks = await Promise.all(
    primaries.map(async ({ name, redis, error }) => {
      if (error !== undefined) return { name, findings: [unreachableFinding(error, redis.options.tls !== undefined)] };
      const { findings, facts } = await checkRedis(redis, { isInCluster });
      if (facts === undefined) return { name, findings };
      const commands = await checkCommands(redis, facts.incarnation);
      return { name, findings: [...findings, ...commands.findings], facts, runsScripts: commands.runsScripts };
    }),
  );
  const findings = findingsOfEach('primaries', checks);
  const lost = partitions.filter(({ primary }) => primary === undefined).map(({ name }) => name);
  if (lost.length > 0) {
    const remedy = 'Check the cluster with CLUSTER SLOTS, and give each slot to a primary.';
    findings.push(
      broken('Redis', `no primary has the slots of ${lost.length} of ${partitions.length} partitions`, remedy),
    );
  }
  const checked = new Map(checks.map((check) => [check.name, check]));
  const watched = await Promise.all(
    partitions.map(async ({ name, prefix, primary }) => {
      const check = primary && checked.get(primary.name);
      if (check?.facts === undefined) return undefined;
      const { facts: redis, runsScripts } = check;
      const { incarnation } = redis;
      // Without an outbox a relay has no work, and without scripts it does none.
      const watch =
        outbox && runsScripts && (await watchRelay(primary!.redis, { prefix, incarnation, boundsMs, pollMs }));
      return { name, redis, watch: watch || undefined };
    }),
  );
  const known = watched.filter((partition) => partition !== undefined);
  return { findings, partitions: known.length === partitions.length ? known : undefined };
}

function unreachableFinding(error: unknown, usesTls: boolean): Finding {
  const remedy = (usesTls && tlsRemedy(error)) || 'Check REDIS_URL (or --redis), the server and the network.';
  return broken('Redis', `the server is unreachable: ${explainError(error)}`, remedy);
}

/** What the partitions have in common, for the ladder. */
function factsOf(
  { outbox }: SourceCheck,
  { partitions }: StoreCheck,
): Pick<InstallationFacts, 'redis' | 'watch' | 'isElsewhere'> {
  if (partitions === undefined) return {};
  const [first] = partitions;
  const watches = partitions.flatMap(({ watch }) => watch ?? []);
  return {
    redis: {
      incarnation: first!.redis.incarnation,
      isPrimary: partitions.every(({ redis }) => redis.isPrimary),
      keepsQuarantines: partitions.every(({ redis }) => redis.keepsQuarantines),
    },
    ...(watches.length === partitions.length && { watch: commonWatch(watches) }),
    isElsewhere:
      outbox !== undefined && partitions.some(({ name, redis }) => isAnotherServer(outboxOf(outbox, name), redis)),
  };
}

/** What relays do for every partition. */
function commonWatch(watches: readonly RelayWatch[]): RelayWatch {
  const [first, ...others] = watches;
  return {
    ...first!,
    isAlive: watches.every(({ isAlive }) => isAlive),
    boundsMs: first!.boundsMs.filter((boundMs) => others.every(({ boundsMs }) => boundsMs.includes(boundMs))),
    unkept: watches.flatMap(({ unkept }) => unkept),
    hasReaders: watches.some(({ hasReaders }) => hasReaders),
  };
}

/** The outbox, with the authority of one partition. */
function outboxOf(outbox: OutboxFacts, partition: string): OutboxFacts {
  const { partitions } = outbox;
  return partitions === undefined ? outbox : { ...outbox, authority: partitions.get(partition) };
}

/** The findings that need both servers. Without Redis, only the finding about waiting events is left. */
function combinedFindings(
  cache: string,
  facts: InstallationFacts,
  {
    partitions,
    wantedMs,
    pollMs,
  }: {
    readonly partitions: readonly PartitionFacts[] | undefined;
    readonly wantedMs: readonly number[];
    readonly pollMs: number;
  },
): Finding[] {
  const { outbox, triggers } = facts;
  if (outbox === undefined) {
    return facts.isReadable ? wantedMs.map((boundMs) => missingBoundFinding(cache, boundMs)) : [];
  }
  const findings: Finding[] = [];
  // With triggers, the finding about its namespaces tells.
  if (isMisspelt(facts) && (outbox.names.fault === undefined || (triggers?.tables ?? 0) === 0)) {
    const finding = outbox.names.fault === undefined ? warn : broken;
    findings.push(finding('cache', describeMisspelling(cache, outbox.names), misspellingRemedy(outbox.names)));
  }
  const relays = (partitions ?? []).flatMap(({ name, redis, watch }) =>
    watch === undefined
      ? []
      : {
          name,
          cache,
          redis,
          watch,
          outbox: outboxOf(outbox, name),
          hasTriggers: (triggers?.tables ?? 0) > 0,
          isMisspelt: isMisspelt(facts),
        },
  );
  if (relays.length === 0) return [...findings, lagFinding(outbox, { pollMs, isRelayAlive: undefined })];
  const ofEach = (findingsOf: (relay: (typeof relays)[number]) => Finding[]) =>
    findingsOfEach(
      'partitions',
      relays.map((relay) => ({ name: relay.name, findings: findingsOf(relay) })),
    );
  findings.push(...ofEach(relayFindings));
  const isAlive = relays.some(({ watch }) => watch.isAlive);
  // The relays of the authoritative server, and their bounds, are unknown on this one.
  const isKnown = isAlive || facts.isElsewhere !== true;
  findings.push(lagFinding(outbox, { pollMs, isRelayAlive: isKnown ? isAlive : undefined }));
  return isKnown ? [...findings, ...ofEach((relay) => boundFindings(relay, wantedMs))] : findings;
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
