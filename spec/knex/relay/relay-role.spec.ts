/** A relay with a role of its own, which may not read what belongs to the application. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { formatGeneration, nonce } from '../../../lib/model/generation.js';
import { generationKey, keyPrefix } from '../../../lib/model/key.js';
import { deferred, eventually } from '../../support/deferred.js';
import { lendKnex } from '../../support/knexes.js';
import { databaseUrl, schemaOf } from '../../support/postgres.js';
import { lendRedis, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { recorded } from '../../support/shop.js';

describe('a relay whose role may not read the lock of migrations', () => {
  let db: Knex;
  let role: string;

  beforeEach(async () => {
    db = await lendOutbox();
    role = uniqueName('role');
    await db.raw('create role ??', [role]);
    await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
    await db.raw('grant select, insert, update, delete on all tables in schema ?? to ??', [schemaOf(db), role]);
    await db.raw('create table knex_migrations_lock (index int, is_locked int)'); // to which that grants nothing
    await db('knex_migrations_lock').insert({ index: 1, is_locked: 1 });
  });

  afterEach(async () => {
    await db.raw('drop owned by ?? cascade', [role]);
    await db.raw('drop role ??', [role]);
  });

  it('warns, and bumps and keeps the held events, until it can read that the lock is free', async () => {
    const cache = uniqueName();
    const redis = lendRedis();
    const key = generationKey(keyPrefix(cache), 'item=1');
    await redis.set(key, formatGeneration(0, nonce()), 'PX', 60_000);
    const bumps = async () => Number.parseInt((await redis.get(key)) ?? '-1', 10);
    const lock = `"${schemaOf(db)}"."knex_migrations_lock"`;
    await db('gencache_outbox').insert({
      ...{ cache, path: 'item=1', source: '003_orders.ts', operation: 'migration', held_by: lock },
    });

    const own = lendKnex(databaseUrl(`${schemaOf(db)} -c role=${role}`), schemaOf(db));
    const { rows } = await own.raw<{ rows: unknown[] }>('select current_user as name');
    expect(rows).to.deep.equal([{ name: role }]);
    const warned = deferred<string>();
    const log = { debug() {}, info() {}, warn: warned.resolve, error: warned.resolve };
    const relay = lendRelay({ db: own, cache, log });
    expect(await warned.promise).to.match(
      new RegExp(
        `^${cache}: the relay can't read whether ${lock} is locked, so the scopes of its migrations are bumped each second, ` +
          'and no bound is kept: .*permission denied for table knex_migrations_lock\\. ' +
          'Grant the role of the relay SELECT on it\\.$',
        's',
      ),
    );
    await eventually(async () => expect(await bumps()).to.be.at.least(2));
    expect(await recorded(db)).to.deep.equal(['item=1']);
    expect(await db('gencache_dead_letter')).to.deep.equal([]);

    await db('knex_migrations_lock').update({ is_locked: 0 });
    const before = await bumps();
    await eventually(async () => expect(await bumps()).to.be.greaterThan(before)); // still can't tell
    expect(await recorded(db)).to.deep.equal(['item=1']);
    await db.raw('grant select on knex_migrations_lock to ??', [role]);
    await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
    await eventually(() => expect(relay.status).to.include({ events: 1, failures: 0, deadLetters: 0 }));
    await relay.stop();
    await own.destroy();
  });
});
