/** The bound of a change whose lookup no longer finds the scope, since a later change took the link away (docs/protocol.md, rule 9). */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, integer } from '../../../lib/index.js';
import { knexSource, onChangeOf } from '../../../lib/knex/index.js';
import { EVERYWHERE } from '../../../lib/knex/outbox/event-position.js';
import { relayBatch } from '../../../lib/knex/relay/relay-batch.js';
import { Partitions } from '../../../lib/ports/partitions.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { schemaOf } from '../../support/postgres.js';
import { lendProxied } from '../../support/knexes.js';
import { lendRedis, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';

const BOUND_MS = 1_500;
const POLL_MS = 20;

describe('the bound of a change with a lookup', () => {
  let db: Knex;
  let name: string;

  beforeEach(async () => {
    db = await lendOutbox({ pool: { max: 20 } });
    name = uniqueName();
    await db.raw(
      `create table workflow (id int primary key, name text);
       create table link (workflow_id int, detector_id int);
       insert into workflow values (9, 'old'); insert into link values (9, 42)`,
    );
    const options = { cache: name };
    await onChangeOf(db, 'workflow', options)
      .lookUp('link', { workflow_id: 'id' })
      .bump({ detector: 'detector_id' })
      .install();
    await onChangeOf(db, 'link', options).bump({ detector: 'detector_id' }).install();
  });

  /** A reader of the workflows of detector 42. */
  function lendReader() {
    const store = redisStore(lendRedis({ lazyConnect: true }));
    const cache = new GenerationalCache({
      ...{ name, store, source: knexSource(db), maxStalenessMs: BOUND_MS },
      ...{ ttlMs: 600_000, ttlJitter: 0 },
    });
    lend({ what: 'the cache of the reader', close: () => cache.close() });
    const workflows = cache.namespace('detector', integer()).list('workflows', {
      load: (ids, { db: at }) =>
        at<{ detector_id: number; name: string }>('link')
          .join('workflow', 'workflow.id', 'link.workflow_id')
          .whereIn(
            'detector_id',
            ids.map(({ detector }) => Number(detector)),
          ),
      by: ({ detector_id: detector }) => ({ detector }),
      value: (row) => row.name,
    });
    const outcome = async () => {
      const looked = await workflows.lookup({ detector: 42 });
      return looked.outcome === 'bypass' ? looked.reason : looked.outcome;
    };
    const warm = () =>
      eventually(
        async () => {
          await workflows.fetch({ detector: 42 });
          await cache.settled();
          expect(await outcome()).to.equal('hit');
        },
        { withinMs: 15_000 },
      );
    return { outcome, warm, fetch: () => workflows.fetch({ detector: 42 }) };
  }

  const isClaimed = async (source: string) =>
    (await db('gencache_outbox').select('seq').where('source', 'like', `%${source}`).forUpdate().skipLocked())
      .length === 0;

  it('begins with the change, although its event is gone before that of the link', async () => {
    const checking = await lendProxied(schemaOf(db));
    const checker = lendRelay({ db: checking.db, cache: name, maxStalenessMs: BOUND_MS, pollMs: POLL_MS });
    const { outcome, warm, fetch } = lendReader();
    await warm();

    // Another relay claims the event of the workflow, and does not get the rows for a while.
    const claiming = await lendProxied(schemaOf(db));
    claiming.db.on('query', ({ sql }: { sql: string }) => sql.startsWith('BEGIN') && claiming.proxy.holdReplies());
    const store = redisStore(lendRedis());
    lend({ what: 'the store of the other relay', close: () => store.close() });
    checking.proxy.hold();
    await db('workflow').where({ id: 9 }).update({ name: 'new' });
    const committedAtMs = performance.now();
    const limits = { bumpDeadlineMs: 1_000, silenceMaxMs: 10_000 };
    const batch = relayBatch(
      {
        ...{ db: claiming.db, partitions: new Partitions(store, name), cache: name, outbox: {}, onForeign: () => {} },
        ...limits,
      },
      EVERYWHERE,
      100,
    );
    await eventually(async () => expect(await isClaimed('workflow')).to.equal(true));
    checking.proxy.release();

    // The checks go on, and see that event. Then the link goes, and a third relay claims its event and is suspended.
    let polls = 0;
    checker.on('poll', () => polls++);
    const half = committedAtMs + BOUND_MS / 2;
    await eventually(() => expect(performance.now()).to.be.greaterThan(half));
    expect(polls).to.be.greaterThan(3);
    checking.proxy.hold();
    await db('link').delete();
    const suspended = await db.transaction();
    lend({ what: 'a suspended claim', close: async () => void (await suspended.rollback()) });
    expect(await suspended('gencache_outbox').where('source', 'like', '%link').forUpdate()).to.have.length(1);

    // The lookup finds no link any more.
    claiming.proxy.releaseReplies();
    expect(await batch).to.include({ events: 1, scopes: 0 });
    expect(await db('gencache_outbox').count('* as n').first()).to.deep.equal({ n: '1' });
    checking.proxy.release();

    let lastHitAtMs = 0;
    await eventually(
      async () => {
        const atMs = performance.now();
        const looked = await outcome();
        if (looked === 'hit') lastHitAtMs = atMs;
        expect(atMs).to.be.greaterThan(committedAtMs + 2 * BOUND_MS);
      },
      { withinMs: 3 * BOUND_MS },
    );
    expect(lastHitAtMs - committedAtMs).to.be.at.most(BOUND_MS);
    expect(await outcome()).to.equal('not_fresh');

    await suspended.rollback();
    await eventually(async () => expect(await fetch()).to.deep.equal([]));
    await warm();
  });
});
