/**
 * A host that scales to zero: it ends the sessions of an idle database, takes seconds to wake at the next connection, and has
 * another life then. A relay with a long pause lets it sleep.
 */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import { installOutbox, type Relay } from '../../../lib/knex/index.js';
import { gencache } from '../../cli/gencache.js';
import { eventually } from '../../support/deferred.js';
import { lendKnex, lendProxied } from '../../support/knexes.js';
import { databaseUrl, privatePostgres, schemaOf } from '../../support/postgres.js';
import type { Proxy } from '../../support/proxy.js';
import { redisUrl, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { createItems, openShop, recorded } from '../../support/shop.js';

const POLL_MS = 1_500;
const WAKES_MS = 3_000;

/** What a relay tells beside its work. */
function alarmsOf(relay: Relay): string[] {
  const alarms: string[] = [];
  relay.on('failure', ({ error }) => alarms.push(error.message));
  relay.on('warning', ({ message }) => alarms.push(message));
  relay.on('repair', ({ cause }) => alarms.push(cause));
  return alarms;
}

const trusting = (relay: Relay) => eventually(() => expect(relay.status.trusted).to.equal(true), { withinMs: 10_000 });

describe('a relay with a long pause', () => {
  let db: Knex;
  let own: Knex;
  let proxy: Proxy;
  let cache: string;

  beforeEach(async () => {
    db = await lendOutbox();
    ({ db: own, proxy } = await lendProxied(schemaOf(db)));
    cache = uniqueName();
  });

  const record = () => db('gencache_outbox').insert({ cache, path: 'item=1', source: 'item', operation: 'UPDATE' });
  const drained = (withinMs: number) =>
    eventually(async () => expect(await recorded(db)).to.deep.equal([]), { withinMs });

  it('sends nothing while it pauses, bumps at the next poll what waited, and takes that for no backlog', async () => {
    const relay = lendRelay({ db: own, cache, pollMs: POLL_MS, backlogMaxMs: 200 });
    const alarms = alarmsOf(relay);
    await trusting(relay);
    await eventually(() => expect((own.client as { pool: { numUsed(): number } }).pool.numUsed()).to.equal(0));
    const sent = proxy.requestBytes;
    await record();
    await sleep(500);
    expect(proxy.requestBytes).to.equal(sent);
    await drained(2 * POLL_MS);
    expect(alarms).to.deep.equal(['first']);
    const beganMs = performance.now();
    await relay.stop();
    expect(performance.now() - beganMs).to.be.lessThan(1_000);
  });

  it('waits for a host that takes seconds to accept a connection: no event is lost, and nothing is reported', async () => {
    const relay = lendRelay({ db: own, cache, pollMs: POLL_MS, backlogMaxMs: 200 });
    const alarms = alarmsOf(relay);
    await trusting(relay);
    proxy.holdsNew = true;
    proxy.cut();
    await record();
    await eventually(() => expect(proxy.connections).to.equal(1), { withinMs: 2 * POLL_MS });
    await sleep(WAKES_MS);
    expect(await recorded(db)).to.deep.equal(['item=1']);
    expect(relay.status.failures).to.equal(0);
    proxy.holdsNew = false;
    proxy.release();
    await drained(2 * POLL_MS);
    // It was away for longer than `backlogMaxMs`, so the first event that waited may cost one bump of everything.
    expect(alarms.filter((alarm) => alarm !== 'backlog')).to.deep.equal(['first']);
  });

  it('waits for a first query that takes seconds: no event is lost, and nothing is reported', async () => {
    const relay = lendRelay({ db: own, cache, pollMs: POLL_MS });
    const alarms = alarmsOf(relay);
    await trusting(relay);
    const sent = proxy.requestBytes;
    proxy.holdReplies();
    await record();
    await eventually(() => expect(proxy.requestBytes).to.be.greaterThan(sent), { withinMs: 3 * POLL_MS });
    await sleep(WAKES_MS);
    proxy.releaseReplies();
    await drained(2 * POLL_MS);
    expect(alarms).to.deep.equal(['first']);
  });

  it('is alive for a doctor that knows the pause', async () => {
    const relay = lendRelay({ db, cache, pollMs: 60_000 });
    await trusting(relay);
    await record();
    const environment = { DATABASE_URL: databaseUrl(schemaOf(db)), REDIS_URL: redisUrl() };
    const findings = async (...args: string[]) => {
      const { out } = await gencache(['doctor', '--cache', cache, '--json', ...args], environment);
      const all = (JSON.parse(out) as { findings: { status: string; check: string }[] }).findings;
      return all.filter(({ check }) => ['relay', 'authority', 'lag'].includes(check)).map(({ status }) => status);
    };
    const [unaware, aware] = await Promise.all([findings(), findings('--poll', '60000')]);
    expect(unaware).to.deep.equal(['broken', 'broken']); // relay, lag
    expect(aware).to.deep.equal(['ok', 'ok', 'ok']);
    await relay.stop();
  });
});

describe('a host that scaled to zero', () => {
  it('has another life when it wakes: the relay bumps everything once, without a failure; writers and readers go on', async () => {
    const server = await privatePostgres();
    const setUp = lendKnex(server.url);
    await installOutbox(setUp);
    await createItems(setUp);
    await setUp.destroy();
    const db = lendKnex(server.url);
    const shop = openShop(db);
    const relay = lendRelay({ db: lendKnex(server.url), cache: shop.name, pollMs: POLL_MS });
    const alarms = alarmsOf(relay);
    await trusting(relay);
    expect(await shop.warm()).to.equal(0);
    await server.restart();
    expect(await shop.set(5)).to.include({ bump: 'done' });
    expect(await shop.warm()).to.equal(5);
    await eventually(() => expect(alarms).to.deep.equal(['first', 'source']), { withinMs: 3 * POLL_MS });
    expect(await shop.warm()).to.equal(5);
  });
});
