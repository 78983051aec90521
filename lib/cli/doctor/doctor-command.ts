/**
 * `gencache doctor`: looks at PostgreSQL, then at Redis, then at whether somebody relays, and names the step of the
 * ladder whose conditions all hold, rather than the one that was meant.
 *
 * Changes nothing. Takes 3 s where no relay is alive, since silence is only seen by waiting.
 */
import type { Redis } from 'ioredis';
import { type Arguments, CACHE, JSON_OUTPUT, UsageError } from '../arguments.js';
import { type Command, FAILED, OK } from '../command.js';
import { explain } from '../explain.js';
import { type Database, DATABASE, REDIS, withDatabase, withRedis } from '../servers.js';
import { CHECK_NAME, misspelt } from '../cache-names.js';
import { broken, type Finding, warn } from './finding.js';
import { describeWaiting, lookAtOutbox, type OutboxFacts } from './outbox-findings.js';
import { lookAtPostgres } from './postgres-findings.js';
import { lookAtRedis, type RedisFacts } from './redis-findings.js';
import { describeBounds, describeRelay, isAnotherServer, unvouched } from './relay-findings.js';
import { type Watched, watchRelay } from './relay-watch.js';
import { type Report, toJson, toText } from './report.js';
import { EXPECTED, type Expected, type Facts, isMisspelt, reaches, standingOf } from './step.js';
import { lookAtTriggers, type TriggerFacts } from './trigger-findings.js';

export const doctor: Command = {
  words: ['doctor'],
  summary: 'Names the step of the ladder that an installation stands on, and what to do next',
  needs: '--cache NAME',
  options: {
    cache: CACHE,
    expect: { value: 'STEP', help: `exits with 1 below this step: ${EXPECTED.join(', ')}` },
    'max-staleness': {
      value: 'MS',
      multiple: true,
      help: 'a bound that must be vouched for; default: finds those likely',
    },
    json: JSON_OUTPUT,
    ...DATABASE,
    ...REDIS,
  },
  about: 'Exits with 0 if nothing is broken and the step is at least the expected one. Changes nothing.',
  example: 'gencache doctor --cache shop --expect 3',

  async run(args, terminal) {
    const cache = args.cache();
    const expected = expectedStep(args);
    const wanted = args.numbers('max-staleness', { least: 100, most: 3_600_000 });
    const source = await withDatabase(args, terminal, { name: 'gencache-doctor' }, (database) =>
      lookAtSource(database, cache),
    );
    const store = await withRedis(args, terminal, (redis) => lookAtStore(redis, cache, source, wanted)).catch(
      (error: unknown): StoreFacts => {
        if (error instanceof UsageError) throw error;
        const remedy = 'See REDIS_URL, the server and the network.';
        return { findings: [broken('Redis', `can't be asked: ${explain(error)}`, remedy)] };
      },
    );
    const facts: Facts = { ...source, ...store };
    const findings = [...source.findings, ...store.findings, ...lookAtBoth(cache, facts, wanted)];
    const standing = standingOf(facts, cache);
    const reached = expected === undefined || reaches(standing, expected);
    const sound = findings.every(({ status }) => status !== 'broken');
    const report: Report = { cache, findings, standing, expected, reached, ok: sound && reached };
    terminal.out(args.flag('json') ? toJson(report) : toText(report));
    return report.ok ? OK : FAILED;
  },
};

interface SourceFacts {
  readonly findings: readonly Finding[];
  readonly readable: boolean;
  readonly outbox?: OutboxFacts | undefined;
  readonly triggers?: TriggerFacts | undefined;
}

async function lookAtSource({ db, outbox }: Database, cache: string): Promise<SourceFacts> {
  let server;
  try {
    server = await lookAtPostgres(db);
  } catch (error) {
    const remedy = 'See DATABASE_URL, the server and the network.';
    return { readable: false, findings: [broken('PostgreSQL', `can't be asked: ${explain(error)}`, remedy)] };
  }
  const looked = await lookAtOutbox(db, cache, server.role, outbox);
  const findings = [...server.findings, ...looked.findings];
  if (looked.facts === undefined) return { readable: looked.unreadable !== true, findings };
  const triggers = await lookAtTriggers(db, cache, outbox);
  return {
    readable: true,
    findings: [...findings, ...triggers.findings],
    outbox: looked.facts,
    triggers: triggers.facts,
  };
}

interface StoreFacts {
  readonly findings: readonly Finding[];
  readonly redis?: RedisFacts | undefined;
  readonly watched?: Watched | undefined;
}

async function lookAtStore(
  redis: Redis,
  cache: string,
  { outbox }: SourceFacts,
  boundsMs: readonly number[],
): Promise<StoreFacts> {
  const { findings, facts } = await lookAtRedis(redis);
  // Without an outbox there is nothing to relay.
  if (outbox === undefined) return { findings, redis: facts };
  return { findings, redis: facts, watched: await watchRelay(redis, cache, facts.incarnation, boundsMs) };
}

/** What only both servers together tell; and of what waits, what PostgreSQL alone does. */
function lookAtBoth(cache: string, facts: Facts, wantedMs: readonly number[]): Finding[] {
  const { outbox, triggers, redis, watched } = facts;
  if (outbox === undefined) return facts.readable ? wantedMs.map((boundMs) => unvouched(cache, boundMs)) : [];
  const findings: Finding[] = [];
  const wrongName = isMisspelt(facts);
  if (wrongName) findings.push(warn('cache', misspelt(cache, outbox.names), CHECK_NAME));
  if (redis === undefined || watched === undefined) return [...findings, describeWaiting(outbox, undefined)];
  const knowing = { recorded: (triggers?.tables ?? 0) > 0, misspelt: wrongName };
  const relays = describeRelay(cache, outbox, redis, watched, knowing);
  // Who relays to that one, and vouches there, is not known from here.
  if (!watched.alive && isAnotherServer(outbox, redis))
    return [...findings, ...relays, describeWaiting(outbox, undefined)];
  return [
    ...findings,
    ...relays,
    describeWaiting(outbox, watched.alive),
    ...describeBounds(cache, outbox, watched, wantedMs),
  ];
}

function expectedStep(args: Arguments): Expected | undefined {
  const text = args.text('expect');
  if (text === undefined) return undefined;
  const expected = EXPECTED.find((step) => step === text);
  if (expected !== undefined) return expected;
  throw new UsageError(
    `--expect is a step of the ladder: ${EXPECTED.join(', ')}. Got "${text}". Leave it out for none.`,
  );
}
