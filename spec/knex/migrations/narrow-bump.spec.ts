import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import * as fc from 'fast-check';
import type { Knex } from 'knex';
import { GenerationalCache, integer, memoryStore, nullable, text, uuid } from '../../../lib/index.js';
import { narrowBump, waiveBump } from '../../../lib/knex/migrations/narrow-bump.js';
import { narrowedPaths, type ScopeIds } from '../../../lib/knex/migrations/narrowed-paths.js';
import { installOutbox } from '../../../lib/knex/install/install-outbox.js';
import { recordEvents } from '../../../lib/knex/outbox/record.js';
import { lendDatabase } from '../../support/postgres.js';
import { eventsOf } from './project.js';

describe('narrowBump', () => {
  let db: Knex;
  const cache = 'shop';

  before(async () => {
    db = await lendDatabase();
    await installOutbox(db);
  });

  beforeEach(async () => {
    await db('gencache_narrowed').delete();
    await db('gencache_outbox').delete();
  });

  const narrowed = () => db('gencache_narrowed').select('cache', 'migration', 'paths');

  for (const [what, migration] of [
    ['its name', '20260101_orders.ts'],
    ['its file', '/app/migrations/20260101_orders.ts'],
    ['its file’s URL', pathToFileURL('/app/migrations/20260101_orders.ts')],
    ['import.meta.url of a loader that adds to it', 'file:///app/my%20migrations/20260101_orders.ts?namespace=1#x'],
  ] as const) {
    it(`takes the migration by ${what}`, async () => {
      await narrowBump(db, { cache, migration, to: [{ customer: 42 }] });
      expect(await narrowed()).to.deep.equal([{ cache, migration: '20260101_orders.ts', paths: ['customer=42'] }]);
    });
  }

  it('takes the name of another source’s migration as it is', async () => {
    await waiveBump(db, { cache, migration: 'core/001' });
    expect(await narrowed()).to.deep.equal([{ cache, migration: 'core/001', paths: [] }]);
  });

  it('adds up the scopes of several calls', async () => {
    await narrowBump(db, { cache, migration: 'm1', to: [{ customer: 1 }] });
    await narrowBump(db, { cache, migration: 'm1', to: [{ customer: 2 }, { customer: 1 }] });
    await waiveBump(db, { cache, migration: 'm1' });
    expect((await narrowed())[0]!.paths).to.have.members(['customer=1', 'customer=2']);
  });

  it('narrows the held events of that migration and cache alone', async () => {
    const held = { path: '', operation: 'migration', heldBy: 'public.knex_migrations_lock' };
    await recordEvents(db, [
      { ...held, cache, source: 'm1' },
      { ...held, cache, source: 'm2' },
      { ...held, cache: 'other', source: 'm1' },
      { cache, path: '', source: 'm1', operation: 'migration' },
    ]);
    await narrowBump(db, { cache, migration: 'm1', to: [{ customer: 1 }, { customer: 2 }] });
    expect(await eventsOf(db, cache)).to.have.members([
      'm2 migration global held by public.knex_migrations_lock',
      'm1 migration global',
      'm1 migration customer=1 held by public.knex_migrations_lock',
      'm1 migration customer=2 held by public.knex_migrations_lock',
    ]);
    expect(await eventsOf(db, 'other')).to.have.length(1);
  });

  for (const [to, message] of [
    [
      [{ Customer: 1 }],
      "A namespace's name must be a lower-case letter, then letters, digits or underscores, 64 characters at most, " +
        "but got 'Customer' (in { Customer: 1 }). Use its declared name.",
    ],
    [
      [{ customer: 1.5 }],
      'An id must be a safe integer, a bigint within 64 bits, a string or null, but got 1.5 (as "customer"). Pass such an id.',
    ],
    [
      [{ customer: undefined }],
      'An id must be a safe integer, a bigint within 64 bits, a string or null, but got undefined (as "customer"). Pass such an id.',
    ],
    [
      ['customer=1'],
      "A scope must be an object of ids, root first, but got 'customer=1'. Pass one such as { detector: 42 }.",
    ],
  ] as const) {
    it(`refuses ${JSON.stringify(to)}`, async () => {
      const error = await narrowBump(db, { cache, migration: 'm1', to: to as unknown as ScopeIds[] }).catch(
        (thrown: unknown) => thrown,
      );
      expect(error).to.deep.include({ name: 'IdError', message });
    });
  }

  it('refuses a migration without a name', async () => {
    const error = await waiveBump(db, { cache, migration: '' }).catch((thrown: unknown) => thrown);
    expect((error as Error).message).to.equal(
      "`migration` must name one migration, but got ''. Pass its name, or `import.meta.url`.",
    );
  });
});

describe('the paths of scopes that a migration names', () => {
  const cache = new GenerationalCache({ name: 'paths', store: memoryStore() });
  const integers = cache.namespace('i', nullable(integer()));
  const texts = integers.namespace('t', text());
  const uuids = cache.namespace('u', uuid());

  it('are the paths of the declared namespaces, for all ids', () => {
    fc.assert(
      fc.property(
        fc.option(fc.oneof(fc.maxSafeInteger(), fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n))),
        fc.string({ unit: 'binary', maxLength: 300 }),
        (i, t) => {
          expect(narrowedPaths({ i, t })).to.include(texts.scope({ i, t }).path);
        },
      ),
    );
  });

  it('are two where capitals may be of a text or of a UUID', () => {
    const id = 'A987FBC9-4BED-3078-CF07-9141BA07C9F3';
    expect(narrowedPaths({ u: id })).to.deep.equal([`u=${id}`, uuids.scope({ u: id }).path]);
    expect(narrowedPaths({ u: id.toLowerCase() })).to.deep.equal([uuids.scope({ u: id }).path]);
  });

  it('are the global path for no ids', () => {
    expect(narrowedPaths({})).to.deep.equal(['']);
  });
});
