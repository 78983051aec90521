/** Relays on two PostgreSQLs of one past, or of none, with one Redis: only the one that is written to may vouch. */
import { privatePostgres } from '../../../support/postgres.js';
import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox, type Relay } from '../../../../lib/knex/index.js';
import { freshnessKey, keyPrefix, markKey } from '../../../../lib/model/key.js';
import { deferred, eventually } from '../../../support/deferred.js';
import { lendKnex } from '../../../support/knexes.js';
import { lendRedis, uniqueName } from '../../../support/redis.js';
import { lendOutbox, lendRelay } from '../../../support/relay.js';
import { recorded } from '../../../support/shop.js';

const BOUND_MS = 1_000;

describe('a relay', () => {
  let db: Knex;
  let cache: string;

  beforeEach(async () => {
    db = await lendOutbox();
    cache = uniqueName();
  });

  const start = (at = db): Relay => lendRelay({ db: at, cache, maxStalenessMs: BOUND_MS, pollMs: 50 });
  const trusting = (relay: Relay) => eventually(() => expect(relay.status.trusted).to.equal(true));
  const record = () => db('gencache_outbox').insert({ cache, path: 'item=1', source: 'item', operation: 'UPDATE' });
  const mark = () => markKey(keyPrefix(cache));
  const vouches = () => lendRedis().exists(freshnessKey(keyPrefix(cache), BOUND_MS));

  describe('of a succeeded primary that runs on', () => {
    /** The mark as a relay on the successor leaves it: of the same system, a timeline later. */
    async function succeed(): Promise<string> {
      const redis = lendRedis();
      const [incarnation, postgres] = (await redis.get(mark()))!.split(' ') as [string, string];
      const [system, , started] = postgres.split('/');
      const successors = `${incarnation} ${system}/0000000A/${started}/another another`;
      await redis.set(mark(), successors, 'PX', 60_000);
      return successors;
    }
    const failing = (relay: Relay) => {
      const { promise, resolve } = deferred<Error>();
      relay.on('failure', ({ error }) => resolve(error));
      return promise;
    };
    const WHY =
      'This PostgreSQL, of timeline 00000001, was succeeded by one of timeline 0000000A, whose events another relay bumps. ' +
      'This relay guarantees no bound. Connect it to the successor, and stop the old primary.';

    it('guarantees no bound, bumps and deletes nothing, and reports the successor; readers leave', async () => {
      const relay = start();
      await trusting(relay);
      const failed = failing(relay);
      const successors = await succeed();
      expect((await failed).message).to.equal(WHY);
      await record();
      await eventually(async () => expect(await vouches()).to.equal(0));
      expect(relay.status).to.include({ trusted: false, repairs: 1, events: 0 });
      expect(await lendRedis().get(mark())).to.equal(successors);
      expect(await recorded(db)).to.deep.equal(['item=1']);
    });

    it('guarantees no bound after a restart of the primary or the relay', async () => {
      const first = start();
      await trusting(first);
      await first.stop();
      const successors = await succeed();
      await db('gencache_authority').update({ postgres: 'as it was before its restart' });
      const relay = start();
      expect((await failing(relay)).message).to.equal(WHY);
      await eventually(async () => expect(await vouches()).to.equal(0));
      expect(relay.status).to.include({ trusted: false, repairs: 0 });
      expect(await lendRedis().get(mark())).to.equal(successors);
    });

    it('relays again when the successor’s mark is gone', async () => {
      const relay = start();
      await trusting(relay);
      const failed = failing(relay);
      await succeed();
      await failed;
      await record();
      await lendRedis().del(mark());
      await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
      await eventually(async () => expect(await vouches()).to.equal(1)); // from its next check on
    });
  });

  it('contests the mark of another system after five seconds: one system has readers at a time', async () => {
    const server = await privatePostgres();
    const other = lendKnex(server.url, 'public');
    await installOutbox(other);
    const relay = start();
    await trusting(relay);
    const contested = deferred<number>();
    relay.on('repair', ({ cause }) => cause === 'mark' && contested.resolve(performance.now()));

    const rival = start(other);
    const markedAtMs = await new Promise<number>((resolve) => {
      rival.on('repair', () => resolve(performance.now()));
    });
    await eventually(() => expect(relay.status.trusted).to.equal(false));
    await record();
    // No longer than that, since it may be the one that is written to; no sooner, or each would undo what the other did.
    expect((await contested.promise) - markedAtMs).to.be.at.least(4_900);
    await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
    await eventually(() => expect(rival.status.trusted).to.equal(false));
    expect(relay.status.failures + rival.status.failures).to.equal(0);
  });
});
