/**
 * A host that scales to zero: it ends the sessions of an idle database, takes seconds to wake at the next connection, and has
 * another life then. A relay with a long pause lets it sleep.
 */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import { installOutbox, type Relay } from '../../../../lib/knex/index.js';
import { gencache } from '../../../cli/gencache.js';
import { eventually } from '../../../support/deferred.js';
import { lendKnex, lendProxied } from '../../../support/knexes.js';
import { databaseUrl, privatePostgres, schemaOf } from '../../../support/postgres.js';
import type { Proxy } from '../../../support/proxy.js';
import { keyPrefix, markKey } from '../../../../lib/model/key.js';
import { MARK_TTL_MS } from '../../../../lib/ports/store.js';
import { lendRedis, redisUrl, uniqueName } from '../../../support/redis.js';
import { lendOutbox, lendRelay } from '../../../support/relay.js';
import { createItems, openShop, recorded } from '../../../support/shop.js';

const POLL_MS = 1_000;
const WAKES_MS = 1_500;

/** What a relay tells beside its work. */
function alarmsOf(relay: Relay): string[] {
  const alarms: string[] = [];
  relay.on('failure', ({ error }) => alarms.push(error.message));
  relay.on('warning', ({ message }) => alarms.push(message));
  relay.on('repair', ({ cause }) => alarms.push(cause));
  return alarms;
}

/** Until the relay is trusted, and pauses: the connection to Redis, when it is up, is a hint that ends the first pause. */
async function resting(relay: Relay): Promise<void> {
  let polledAtMs = performance.now();
  relay.on('poll', () => (polledAtMs = performance.now()));
  await eventually(
    () => {
      expect(relay.status.trusted).to.equal(true);
      expect(performance.now() - polledAtMs).to.be.greaterThan(POLL_MS / 3);
    },
    { withinMs: 10_000 },
  );
}

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
    await resting(relay);
    const sent = proxy.requestBytes;
    await record();
    await sleep(POLL_MS / 4);
    expect(proxy.requestBytes).to.equal(sent);
    await drained(10_000);
    expect(alarms).to.deep.equal(['first']);
    const beganMs = performance.now();
    await relay.stop();
    expect(performance.now() - beganMs).to.be.lessThan(1_000);
  });

  it('waits for a host that takes seconds to accept a connection: no event is lost, and nothing is reported', async () => {
    const relay = lendRelay({ db: own, cache, pollMs: POLL_MS, backlogMaxMs: 200 });
    const alarms = alarmsOf(relay);
    await resting(relay);
    proxy.holdsNew = true;
    proxy.cut();
    await record();
    await eventually(() => expect(proxy.connections).to.equal(1));
    await sleep(WAKES_MS);
    expect(await recorded(db)).to.deep.equal(['item=1']);
    expect(alarms).to.deep.equal(['first']);
    proxy.holdsNew = false;
    proxy.release();
    await drained(10_000);
    // It was away for longer than `backlogMaxMs`, so the first event that waited may cost one bump of everything.
    expect(alarms.filter((alarm) => alarm !== 'backlog')).to.deep.equal(['first']);
  });

  it('waits for a first query that takes seconds: no event is lost, and nothing is reported', async () => {
    const relay = lendRelay({ db: own, cache, pollMs: POLL_MS });
    const alarms = alarmsOf(relay);
    await resting(relay);
    const sent = proxy.requestBytes;
    proxy.holdReplies();
    await record();
    await eventually(() => expect(proxy.requestBytes).to.be.greaterThan(sent));
    await sleep(WAKES_MS);
    proxy.releaseReplies();
    await drained(10_000);
    expect(alarms).to.deep.equal(['first']);
  });

  it('is alive for a doctor that knows the pause', async () => {
    const relay = lendRelay({ db, cache, pollMs: 60_000 });
    await resting(relay);
    await record();
    const environment = { DATABASE_URL: databaseUrl(schemaOf(db)), REDIS_URL: redisUrl() };
    const findings = async (...args: string[]) => {
      const { out } = await gencache(['doctor', '--cache', cache, '--json', ...args], environment);
      const all = (JSON.parse(out) as { findings: { status: string; check: string }[] }).findings;
      return all.filter(({ check }) => ['relay', 'authority', 'lag'].includes(check)).map(({ status }) => status);
    };
    expect(await findings('--poll', '60000')).to.deep.equal(['ok', 'ok', 'ok']);
    await lendRedis().pexpire(markKey(keyPrefix(cache)), MARK_TTL_MS - 70_000); // as 70 s after its last check
    expect(await findings('--poll', '60000')).to.deep.equal(['broken', 'broken']); // relay, lag
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
    await resting(relay);
    expect(await shop.warm()).to.equal(0);
    await server.restart();
    expect(await shop.set(5)).to.include({ bump: 'done' });
    expect(await shop.warm()).to.equal(5);
    await eventually(() => expect(alarms).to.deep.equal(['first', 'source']));
    expect(await shop.warm()).to.equal(5);
  });
});
