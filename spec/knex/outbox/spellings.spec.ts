/** An event spells ids as its columns do; readers by another kind of id know the same scopes by other paths. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, type IdKind, integer, text, uuid } from '../../../lib/index.js';
import { changed, knexSource, onChangeOf } from '../../../lib/knex/index.js';
import { scopesToBump, spellings } from '../../../lib/knex/outbox/spellings.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { READ_DEADLINE_MS } from '../../support/cache.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { lendRedis, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';

const LOWER = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11';
const UPPER = LOWER.toUpperCase();
const SHORT = LOWER.replaceAll('-', '');

describe('the spellings of a path', () => {
  for (const [id, ...others] of [
    [LOWER],
    [UPPER, LOWER],
    [SHORT, LOWER],
    [`%7B${UPPER}%7D`, LOWER],
    ['42'],
    ['-42'],
    ['0'],
    ['042', '42'],
    ['%2042', '42'],
    ['42%20', '42'],
    ['%2B42', '42'],
    ['-0', '0'],
    ['-007', '-7'],
    ['0x2A', '42'],
    ['09223372036854775807', '9223372036854775807'],
    ['09223372036854775808'],
    ['~'],
    [''],
    ['%20'],
    ['00-11'],
    ['01b'],
    ['1.50'],
    ['%uD800'],
    [`%h${'A'.repeat(64)}`],
    [`${UPPER}0`],
    [`${UPPER.slice(0, -1)}G`],
  ] as [string, ...string[]][]) {
    it(`of the id "${id}" are ${[id, ...others].map((each) => `"${each}"`).join(' and ')}`, () => {
      expect(spellings(`owner=${id}`)).to.deep.equal([id, ...others].map((each) => `owner=${each}`));
    });
  }

  it('combine those of each namespace', () => {
    expect(spellings(`owner=${UPPER}/part=07/note=x`)).to.deep.equal([
      `owner=${UPPER}/part=07/note=x`,
      `owner=${UPPER}/part=7/note=x`,
      `owner=${LOWER}/part=07/note=x`,
      `owner=${LOWER}/part=7/note=x`,
    ]);
  });

  it('are those of the scope above where there are more than 16', () => {
    const path = Array.from({ length: 16 }, (_, i) => `part=0${i}`).join('/');
    const found = spellings(path);
    expect(found).to.have.length(16);
    expect(found).to.include('part=00/part=01/part=02/part=03');
    expect(found).to.include('part=0/part=1/part=2/part=3');
  });

  it('leave no scope below another', () => {
    expect(scopesToBump(new Set([`owner=${UPPER}`, `owner=${LOWER}/part=1`]))).to.deep.equal([
      `owner=${UPPER}`,
      `owner=${LOWER}`,
    ]);
    expect(scopesToBump(new Set(['', 'part=07']))).to.deep.equal(['']);
  });
});

describe('a reader whose ids are of another kind than the column', () => {
  let db: Knex;
  let name: string;

  beforeEach(async () => {
    db = await lendOutbox();
    name = uniqueName();
    await db.raw(`
      create type label as enum ('${UPPER}', '007');
      create table note (id int primary key, owner text, label label, body text);
      create table link (id int primary key, note_id int, owner text)`);
  });

  interface Note {
    readonly id: string;
    readonly body: string | null;
  }

  /** A cache of notes by their owner, which its loader casts to the kind of the ids: `owner::uuid`. */
  function notesBy(kind: IdKind<never, string | number>, reads: string) {
    const cache = new GenerationalCache({
      name,
      store: redisStore(lendRedis()),
      source: knexSource(db),
      readDeadlineMs: READ_DEADLINE_MS,
    });
    lend({ what: `the cache ${name}`, close: () => cache.close() });
    const notes = cache.namespace('owner', kind as IdKind<unknown, string | number>).one('body', {
      async load(ids) {
        const { rows } = await db.raw<{ rows: Note[] }>(
          `select (${reads})::text as id, body from note where (${reads})::text = any(?)`,
          [ids.map(({ owner }) => String(owner)) as unknown as string],
        );
        return rows;
      },
      by: (row: Note) => ({ owner: row.id }),
      value: (row: Note) => row.body,
    });
    return { cache, read: (owner: string | number) => notes.fetch({ owner } as never) };
  }

  for (const [what, kind, reads, stored, id] of [
    ['a UUID in capitals', uuid(), 'owner::uuid', UPPER, LOWER],
    ['a UUID without hyphens', uuid(), 'owner::uuid', SHORT, LOWER],
    ['a number with a zero in front', integer(), 'owner::bigint', '042', 42],
    ['a number with a blank in front', integer(), 'owner::bigint', ' 42', 42],
    ['a text', text(), 'owner', 'a', 'a'],
  ] as const) {
    it(`reads ${what} anew after a write by SQL, of one row and of several`, async () => {
      await onChangeOf(db, 'note', { cache: name }).bump({ owner: 'owner' }).install();
      await db.raw(`insert into note (id, owner, body) values (1, ?, 'a'), (2, null, 'b')`, [stored]);
      const relay = lendRelay({ db, cache: name });
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      const { cache, read } = notesBy(kind as never, reads);
      expect(await read(id)).to.equal('a');
      await cache.settled();
      await db.raw(`update note set body = 'one' where id = 1`);
      await eventually(async () => expect(await read(id)).to.equal('one'));
      await cache.settled();
      await db.raw(`update note set body = 'many'`);
      await eventually(async () => expect(await read(id)).to.equal('many'));
      await cache.settled();
      await cache.transaction((trx) => trx.raw(`update note set body = 'own' where id = 1`));
      expect(await read(id)).to.equal('own');
    });
  }

  it('reads the label of an enumeration anew', async () => {
    await onChangeOf(db, 'note', { cache: name }).bump({ owner: 'label' }).install();
    await db.raw(`insert into note (id, label, body) values (1, ?, 'a')`, [UPPER]);
    const { cache, read } = notesBy(uuid() as never, 'label::text::uuid');
    expect(await read(LOWER)).to.equal('a');
    await cache.settled();
    await cache.transaction((trx) => trx.raw(`update note set body = 'own'`));
    expect(await read(LOWER)).to.equal('own');
  });

  it('reads what a lookup finds anew', async () => {
    await onChangeOf(db, 'note', { cache: name })
      .bump({ owner: 'owner' })
      .lookUp('link', { note_id: 'id' })
      .bump({ owner: changed('owner') })
      .install();
    await onChangeOf(db, 'link', { cache: name }).lookUp('note', { id: 'note_id' }).bump({ owner: 'owner' }).install();
    await db.raw(`insert into note (id, owner, body) values (1, ?, 'a')`, [UPPER]);
    await db.raw(`insert into link (id, note_id) values (1, 1)`);
    const { cache, read } = notesBy(uuid() as never, 'owner::uuid');
    expect(await read(LOWER)).to.equal('a');
    await cache.settled();
    await cache.transaction(async (trx) => {
      await trx.raw(
        `set local gencache.events = 'off'; update note set body = 'own'; set local gencache.events = 'on'`,
      );
      await trx.raw(`update link set note_id = 2; update link set note_id = 1`);
    });
    expect(await read(LOWER)).to.equal('own');
  });
});
