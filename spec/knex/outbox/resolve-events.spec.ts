/** From events to the scopes that are bumped for them, by a relay on real servers. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { formatGeneration, nonce } from '../../../lib/model/generation.js';
import { generationKey, keyPrefix } from '../../../lib/model/key.js';
import { nearestScope, topmost } from '../../../lib/model/path.js';
import { recordCommands } from '../../support/commands.js';
import { eventually } from '../../support/deferred.js';
import { lendRedis, redisUrl, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';

describe('the scopes of a batch', () => {
  let db: Knex;
  let cache: string;

  beforeEach(async () => {
    db = await lendOutbox();
    cache = uniqueName();
  });

  const record = (events: { path: string; lookup?: string; args?: unknown }[]) =>
    db('gencache_outbox').insert(
      events.map(({ path, lookup, args }) => ({
        ...{ cache, path, source: 'public.item', operation: 'UPDATE' },
        ...(lookup && { lookup, args: JSON.stringify(args) }),
      })),
    );
  const deadLetters = () =>
    db('gencache_dead_letter')
      .where({ cache })
      .orderBy(['path', 'seq'])
      .select('path', 'lookup', 'bumped', 'reason', 'args');

  /** Relays all that was recorded, and tells which generations were bumped, a command each. */
  async function relayed(options: Partial<Parameters<typeof lendRelay>[0]> = {}): Promise<string[][]> {
    const prefix = generationKey(keyPrefix(cache), '');
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        const relay = lendRelay({ db, cache, ...options });
        await eventually(() => expect(relay.status.trusted).to.equal(true));
        await eventually(async () => expect(await db('gencache_outbox').where({ cache })).to.deep.equal([]));
        expect(relay.status.failures).to.equal(0);
        await relay.stop();
      },
      {
        from: (command) =>
          command[0]!.startsWith('EVAL') &&
          command.join(' ').includes(prefix) &&
          !command.join(' ').includes(`${keyPrefix(cache)}m`),
      },
    );
    return commands.map((command) =>
      command.filter((arg) => arg.startsWith(prefix)).map((arg) => arg.slice(prefix.length)),
    );
  }

  it('are bumped once each, without scopes below others, in one command', async () => {
    await record(
      ['item=1', 'item=1', 'item=2/part=1', 'item=2', 'item=2/part=2', 'item=3/part=1', 'item=1'].map((path) => ({
        path,
      })),
    );
    expect((await relayed()).map((paths) => paths.sort())).to.deep.equal([['item=1', 'item=2', 'item=3/part=1']]);
  });

  it('are global alone if global is one of them', async () => {
    await record(['item=1', '', 'item=2'].map((path) => ({ path })));
    expect(await relayed()).to.deep.equal([['']]);
  });

  it('are bumped a thousand in a command', async () => {
    await record(Array.from({ length: 2_500 }, (_, i) => ({ path: `item=${i}` })));
    const commands = await relayed({ batchMax: 5_000 });
    expect(commands.map((paths) => paths.length)).to.deep.equal([1_000, 1_000, 500]);
    expect(new Set(commands.flat()).size).to.equal(2_500);
  });

  it('are bumped without a declaration in the relay', async () => {
    const redis = lendRedis();
    const key = generationKey(keyPrefix(cache), 'project=9/file=~');
    const before = formatGeneration(0, nonce());
    await redis.set(key, before, 'PX', 60_000);
    await record([{ path: 'project=9/file=~' }, { path: 'project=9/note=' }]);
    expect(await relayed()).to.deep.equal([['project=9/file=~', 'project=9/note=']]);
    expect(await redis.get(key)).to.match(/^1\./);
    expect(await deadLetters()).to.deep.equal([]);
  });

  it('may be paths of the greatest length', async () => {
    const longest = Array.from({ length: 16 }, () => `${'n'.repeat(64)}=${'x'.repeat(220)}`).join('/');
    await record([{ path: longest }, { path: `${'n'.repeat(65)}=1` }, { path: `item=1/${'n'.repeat(65)}=1` }]);
    await relayed();
    expect((await deadLetters()).map(({ bumped }) => bumped)).to.deep.equal(['item=1', '']);
    await record([{ path: longest }]);
    expect(await relayed()).to.deep.equal([[longest]]);
  });

  it('are the nearest valid ancestor of an invalid path, which becomes a dead letter with the reason', async () => {
    const deep = Array.from({ length: 17 }, (_, i) => `level=${i}`).join('/');
    await record(
      [
        ...[
          'item=1/part:2',
          'nonsense',
          'item=1/part=2\n',
          'Item=1',
          `item=${'x'.repeat(221)}/a=1`,
          deep,
          'item=1//part=1',
          '/',
        ],
        'item=5',
      ].map((path) => ({ path })),
    );
    const bumped = [['', '', '', '', 'item=1', 'item=1', 'item=1', deep.split('/').slice(0, 16).join('/')]].flat();
    expect(await relayed()).to.deep.equal([['']]);
    const aside = await deadLetters();
    expect(aside.map((row) => row.bumped).sort()).to.deep.equal(bumped.sort());
    expect(aside.find(({ path }) => path === 'item=1/part:2')).to.include({
      bumped: 'item=1',
      reason: 'The path is invalid: "item=1/part:2".',
    });
  });

  describe('of events with a lookup', () => {
    const LOOKUP = 'gencache_lookup_spec';
    /** A lookup whose result for each image is what the image says. */
    const define = (body: string, name = LOOKUP) =>
      db.raw(
        `create or replace function ${name}(args jsonb) returns setof text language plpgsql as $body$ begin ${body} end $body$`,
      );
    const asking = (...args: unknown[]) => args.map((arg) => ({ path: 'item=9', lookup: LOOKUP, args: arg }));

    it('are found by one query for all events of a lookup, after their commit', async () => {
      await define(`return query select 'item=' || (each ->> 'id') from jsonb_array_elements(args) as each;`);
      await record(asking([{ id: 1 }, { id: 2 }], [{ id: 2 }], { id: 3 }));
      const queries: string[] = [];
      db.on('query', ({ sql }: { sql: string }) => queries.push(sql));
      expect((await relayed()).map((paths) => paths.sort())).to.deep.equal([['item=1', 'item=2', 'item=3']]);
      expect(queries.filter((sql) => sql.includes(LOOKUP))).to.have.length(1);
    });

    it('may be none: the events are deleted, and nothing is bumped', async () => {
      await define('return;');
      await record(asking([{ id: 1 }]));
      expect(await relayed()).to.deep.equal([]);
    });

    it('are the nearest valid ancestors where the lookup returns invalid paths, and global for null', async () => {
      await define(`return query select each ->> 'path' from jsonb_array_elements(args) as each;`);
      await record(asking([{ path: 'item=1/x' }]));
      expect(await relayed()).to.deep.equal([['item=1']]);
      await record(asking([{ path: null }, { path: 'item=2' }]));
      expect(await relayed()).to.deep.equal([['']]);
    });

    it('are the event’s own path where the function is missing or is not a lookup; the event becomes a dead letter', async () => {
      await record([
        { path: 'item=1', lookup: 'gencache_lookup_gone', args: [{ id: 1 }] },
        { path: 'item=2/x', lookup: 'pg_sleep', args: 1 },
        { path: 'item=3', lookup: 'gencache_lookup_x"; drop table gencache_outbox; --', args: 1 },
      ]);
      expect((await relayed()).map((paths) => paths.sort())).to.deep.equal([['item=1', 'item=2', 'item=3']]);
      const [gone, sleeping, hostile] = await deadLetters();
      expect(gone).to.include({ path: 'item=1', lookup: 'gencache_lookup_gone', bumped: 'item=1' });
      expect(gone.reason).to.contain('function gencache_lookup_gone(jsonb) does not exist');
      expect(gone.args).to.deep.equal([{ id: 1 }]);
      expect(sleeping).to.include({ bumped: 'item=2', reason: 'The lookup is not one of gencache\'s: "pg_sleep".' });
      expect(hostile).to.include({ bumped: 'item=3' });
    });

    for (const [what, failure] of [
      ['divides by zero', 'perform 1 / 0;'],
      ['raises', `raise exception 'no such thing';`],
      ['finds two rows for one', `perform (select i from generate_series(1, 2) as i);`],
      [
        'breaks a constraint',
        `create temporary table if not exists narrow (id int check (id > 0)); insert into narrow values (0);`,
      ],
    ] as const) {
      it(`are found for all other events in a few queries when a lookup ${what} for one of many`, async () => {
        await define(
          `if args @> '[{"id": 13}]' then ${failure} end if;
           return query select 'item=' || (each ->> 'id') from jsonb_array_elements(args) as each;`,
        );
        await record(
          Array.from({ length: 100 }, (_, i) => ({ path: `fallback=${i}`, lookup: LOOKUP, args: [{ id: i }] })),
        );
        const queries: string[] = [];
        db.on('query', ({ sql }: { sql: string }) => queries.push(sql));
        const [paths] = await relayed();
        expect(paths!.sort()).to.deep.equal(
          [
            'fallback=13',
            ...Array.from({ length: 100 }, (_, i) => `item=${i}`).filter((path) => path !== 'item=13'),
          ].sort(),
        );
        expect((await deadLetters()).map(({ path }) => path)).to.deep.equal(['fallback=13']);
        expect(queries.filter((sql) => sql.includes(LOOKUP)).length).to.be.at.most(16);
      });
    }

    it('are the fallbacks of all events at once when a lookup exceeds statement_timeout', async () => {
      await define(`raise query_canceled;`); // as the server does when the time is up
      await record(
        Array.from({ length: 20 }, (_, i) => ({ path: `fallback=${i}`, lookup: LOOKUP, args: [{ id: i }] })),
      );
      const queries: string[] = [];
      db.on('query', ({ sql }: { sql: string }) => queries.push(sql));
      expect((await relayed())[0]).to.have.length(20);
      expect(queries.filter((sql) => sql.includes(LOOKUP))).to.have.length(1);
      expect(await deadLetters()).to.have.length(20);
    });

    for (const [code, what] of [
      ['40P01', 'a deadlock'],
      ['53300', 'too many connections'],
      ['57P01', 'a shutdown'],
    ] as const) {
      it(`are resolved again after ${what}, without a dead letter`, async () => {
        await db.raw('create sequence tries');
        await define(
          `if nextval('tries') < 3 then raise exception 'for now' using errcode = '${code}'; end if;
           return query select 'item=' || (each ->> 'id') from jsonb_array_elements(args) as each;`,
        );
        await record(asking([{ id: 1 }]));
        const relay = lendRelay({ db, cache, pollMs: 5 });
        await eventually(() => expect(relay.status.events).to.equal(1));
        expect(relay.status.failures).to.equal(2);
        expect(await deadLetters()).to.deep.equal([]);
      });
    }

    it('are the fallbacks where the looked-up table stays locked: no other event waits', async () => {
      await db.raw('create table looked_up (id int)');
      await define(`return query select 'item=' || id from looked_up;`);
      const locker = await db.transaction();
      await locker.raw('lock table looked_up in access exclusive mode');
      await record([...asking([{ id: 1 }]), { path: 'other=1' }]);
      expect((await relayed())[0]).to.have.members(['item=9', 'other=1']);
      expect(await deadLetters()).to.deep.equal([]);
      await locker.rollback();
    });

    it('are the events’ own paths above 10,000 scopes, without dead letters', async () => {
      await define(`return query select 'item=' || i from generate_series(1, 10001) as i;`);
      await record(asking([{ id: 1 }]));
      expect(await relayed()).to.deep.equal([['item=9']]);
      expect(await deadLetters()).to.deep.equal([]);
      await define(`return query select 'item=' || i from generate_series(1, 10000) as i;`);
      await record(asking([{ id: 1 }]));
      expect((await relayed()).flat()).to.have.length(10_000);
    });

    it('are the events’ own paths above 10,000 scopes in sum after a lookup was halved', async () => {
      await define(
        `if jsonb_array_length(args) > 1 then raise exception 'one at a time'; end if;
         return query select 'item=' || (args -> 0 ->> 'id') || '/part=' || i from generate_series(1, 4000) as i;`,
      );
      await record(asking([{ id: 1 }], [{ id: 2 }], [{ id: 3 }], [{ id: 4 }]));
      expect(await relayed()).to.deep.equal([['item=9']]);
    });
  });
});

describe('the topmost of paths', () => {
  it('cover all scopes below them', () => {
    const of = (...paths: string[]) => topmost(new Set(paths));
    expect(of()).to.deep.equal([]);
    expect(of('a=1/b=2', 'a=1')).to.deep.equal(['a=1']);
    expect(of('a=1/b=2/c=3', 'a=1/b=2/c=4', 'a=1/b=2')).to.deep.equal(['a=1/b=2']);
    expect(of('a=1', 'a=11', 'a=11/b=1')).to.deep.equal(['a=1', 'a=11']);
    expect(of('a=1/b=1', '')).to.deep.equal(['']);
  });
});

describe('the nearest scope', () => {
  it('is the path, or its longest valid part from the root', () => {
    for (const [path, nearest] of [
      ['', ''],
      ['a=1', 'a=1'],
      ['a=1/b', 'a=1'],
      ['a=1/b=%h00/c=~', 'a=1/b=%h00/c=~'],
      ['a=1/ b=2', 'a=1'],
      ['/a=1', ''],
      ['a=1\n', ''],
    ] as const) {
      expect(nearestScope(path)).to.equal(nearest);
    }
  });
});
