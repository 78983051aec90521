import { inspect } from 'node:util';
import { expect } from 'chai';
import {
  ConfigurationError,
  GenerationalCache,
  integer,
  memoryStore,
  type DecodeFailureEvent,
  type FillEvent,
} from '../lib/index.js';
import { redisStore } from '../lib/store/redis/index.js';
import { lendCache, READ_DEADLINE_MS } from './support/cache.js';
import { lend } from './support/lenders.js';
import { lendRedis, uniqueName } from './support/redis.js';

const load = async (ids: readonly object[]) => [...ids];
const by = (row: object) => row as { item: number };

function thrownBy(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  throw new Error('it threw nothing');
}

function lendItems() {
  const cache = new GenerationalCache({ name: uniqueName(), store: memoryStore() });
  lend({ what: 'the cache', close: () => cache.close() });
  return { cache, items: cache.namespace('item', integer()) };
}

describe('a declaration', () => {
  for (const ttlMs of [0, -1, NaN, Infinity, 0.5, '60000' as unknown as number]) {
    it(`rejects a TTL of ${String(ttlMs)}${typeof ttlMs === 'string' ? ' (text)' : ''}`, () => {
      const error = thrownBy(() => lendItems().items.one('value', { ttlMs, load, by }));
      expect(error).to.be.instanceOf(ConfigurationError);
      expect(error).to.have.property(
        'message',
        `ttlMs must be an integer from 1 to 31536000000 ms, but got ${inspect(ttlMs)} (entry "value"). ` +
          'Pass how long a value may be served if every bump were lost.',
      );
    });
  }

  it('rejects an option of an entry that does not exist', () => {
    const misspelt = { stalMs: 1_000, load, by } as unknown as { load: typeof load; by: typeof by };
    const error = thrownBy(() => lendItems().items.one('value', misspelt));
    expect(error).to.be.instanceOf(ConfigurationError);
    expect(error)
      .to.have.property('message')
      .that.matches(/^The options of an entry must be among .*staleMs.*"stalMs"/);
    const rows = { load: async () => 1, by } as unknown as { load: () => Promise<number> };
    expect(thrownBy(() => lendItems().items.value('value', rows)))
      .to.have.property('message')
      .that.includes('"by"');
  });

  it('rejects a TTL of a cache that is not finite', () => {
    const error = thrownBy(() => new GenerationalCache({ name: 'shop', store: memoryStore(), ttlMs: Infinity }));
    expect(error).to.have.property(
      'message',
      'ttlMs must be an integer from 1 to 31536000000 ms, but got Infinity (cache "shop"). ' +
        'Pass how long a value may be served if every bump were lost.',
    );
  });

  it('rejects a second namespace of the same name', () => {
    const { cache, items } = lendItems();
    expect(thrownBy(() => cache.namespace('item', integer()))).to.have.property(
      'message',
      'A namespace must be declared once, but got "item" again (already declared below global). ' +
        'Keep the object that the first declaration returned and use it everywhere.',
    );
    expect(thrownBy(() => items.namespace('item', integer()))).to.have.property(
      'message',
      'A namespace must be declared once, but got "item" again (already declared above it). ' +
        'Keep the object that the first declaration returned and use it everywhere.',
    );
  });

  it('rejects a second entry of the same name', () => {
    const { items } = lendItems();
    items.one('value', { load, by });
    expect(thrownBy(() => items.list('value', { load, by }))).to.have.property(
      'message',
      'An entry must be declared once, but got "value" again (already declared in item). ' +
        'Keep the object that the first declaration returned and use it everywhere.',
    );
  });

  it('rejects a name that a key can’t hold', () => {
    const { cache, items } = lendItems();
    const rule = 'a lower-case letter, then letters, digits or underscores, 64 characters at most';
    expect(thrownBy(() => cache.namespace('a:b', integer()))).to.have.property(
      'message',
      `The name of a namespace must be ${rule}, and not "global", but got 'a:b'. Choose such a name.`,
    );
    expect(thrownBy(() => items.one('__proto__', { load, by }))).to.have.property(
      'message',
      `The name of an entry must be ${rule}, but got '__proto__'. Choose such a name.`,
    );
    expect(thrownBy(() => items.one('value', { key: { item: integer() }, load, by }))).to.have.property(
      'message',
      `The name of an id in \`key\` must be ${rule}, and not the name of a namespace above the entry, but got 'item' ` +
        '(entry "value" below item). Choose another name.',
    );
    expect(thrownBy(() => new GenerationalCache({ name: 'a b', store: memoryStore() }))).to.have.property(
      'message',
      'The name of a cache must be 1 to 64 letters, digits, "_", "." and "-", the first a letter or a digit, but got ' +
        "'a b'. Pass such a name, the same in every process.",
    );
  });

  it('rejects an entry without a loader, and a cache without a store', () => {
    const { items } = lendItems();
    expect(thrownBy(() => items.one('value', { by } as never))).to.have.property(
      'message',
      '`load` must be a function, but got undefined (entry "value"). ' +
        'Pass a function that reads the rows, or the value, of the ids it is given.',
    );
    expect(thrownBy(() => items.one('value', { load, by: undefined } as never))).to.have.property(
      'message',
      '`by` must be a function, but got undefined (entry "value"). Pass a function that returns the ids of a row.',
    );
    expect(thrownBy(() => new GenerationalCache({ name: 'shop' } as never))).to.have.property(
      'message',
      '`store` must be a store, but got undefined (cache "shop"). Pass redisStore(redis) or memoryStore().',
    );
  });

  it('rejects a dependency on another cache’s scope', async () => {
    const other = lendItems().items.scope({ item: 9 });
    const value = lendItems().items.one('value', { load, by, dependsOn: () => [other] });
    const error = await value.fetch({ item: 1 }).catch((thrown: unknown) => thrown);
    expect(error).to.have.property(
      'message',
      '`dependsOn` must return scopes of the same cache, since one lookup reads all generations, but got ' +
        'item=9 of another cache. Take the scope from a namespace of this cache: `namespace.scope(ids)`.',
    );
  });

  it('rejects an option out of range', () => {
    const make = (options: object) =>
      thrownBy(() => new GenerationalCache({ name: 'shop', store: memoryStore(), ...options }));
    expect(make({ readDeadlineMs: 0 })).to.have.property(
      'message',
      'readDeadlineMs must be an integer from 1 to 60000, but got 0. Leave it out for the default.',
    );
    expect(make({ verifyRate: 1.5 })).to.have.property(
      'message',
      'verifyRate must be a number from 0 to 1, but got 1.5. Leave it out for the default.',
    );
    expect(thrownBy(() => memoryStore({ maxBytes: Infinity }))).to.have.property(
      'message',
      'maxBytes must be an integer from 1, but got Infinity (memoryStore). Leave it out for 64 MiB.',
    );
  });

  it('rejects a Redis store that already serves a cache', () => {
    const store = redisStore(lendRedis());
    lend({ what: 'the store', close: () => store.close() });
    const name = uniqueName();
    const make = () => new GenerationalCache({ name, store });
    make();
    expect(thrownBy(make)).to.have.property(
      'message',
      'A Redis store must serve one cache, which closes its connection, but got a second one. ' +
        'Call redisStore(redis) once for each cache.',
    );
  });
});

describe('a loader rejects its callers, and the cache stores no value,', () => {
  async function rejection(
    declare: (items: ReturnType<typeof lendItems>['items']) => { fetch(ids: { item: number }): Promise<unknown> },
  ) {
    const { cache, items } = lendItems();
    const error = await declare(items)
      .fetch({ item: 1 })
      .catch((thrown: unknown) => thrown);
    expect(error).to.deep.include({ name: 'LoaderContractError', code: 'LOADER_CONTRACT', entry: 'value' });
    await cache.settled();
    expect(cache.statistics.total('fills')).to.equal(0);
    return (error as Error).message;
  }

  it('for rows of ids that it was not given', async () => {
    const message = await rejection((items) => items.list('value', { load: async () => [{ item: 2 }], by }));
    expect(message).to.equal(
      'A loader must return only rows of the ids it was given, but got a row of { item: 2 } (entry "value"). ' +
        "Correct the query's condition, or `by`.",
    );
  });

  const malformed: [string, unknown, string][] = [
    ['without an id', {}, 'Ids must name every namespace from the root down, but got {} without "item".'],
    [
      'with an id of a column that was not selected',
      { item: undefined },
      'Ids must name every namespace from the root down, but got { item: undefined }, in which "item" is undefined.',
    ],
    [
      'with an id of another kind',
      { item: null },
      'The id "item" must be a safe integer, or a bigint or canonical decimal text within 64 bits (kind integer), but ' +
        'got null.',
    ],
    ['with an unknown id', { item: 1, id: 1 }, 'Ids must name only item, but got "id" in { item: 1, id: 1 }.'],
    [
      'that are no object',
      undefined,
      'Ids must be an object that names the namespaces from the root down, { item }, but got undefined.',
    ],
  ];
  for (const [what, ids, problem] of malformed) {
    it(`for rows whose \`by\` returns ids ${what}, with the remedy of a loader`, async () => {
      const message = await rejection((items) =>
        items.list('value', { load: async () => [{ item_id: 1 }], by: () => ids as never }),
      );
      expect(message).to.equal(
        `\`by\` must return the ids of a row, but got ${inspect(ids)} (entry "value"). ${problem} ` +
          'Correct `by`, or select the columns it reads.',
      );
    });
  }

  it('for two rows of an entry of one row', async () => {
    const message = await rejection((items) =>
      items.one('value', { load: async () => [{ item: 1 }, { item: 1 }], by }),
    );
    expect(message).to.equal(
      'An entry declared with `one` must have at most one row, but got two for { item: 1 } (entry "value"). ' +
        'Correct the query, or declare the entry with `list`.',
    );
  });

  it('for a result that is no array', async () => {
    const message = await rejection((items) => items.one('value', { load: async () => ({ rows: [] }) as never, by }));
    expect(message).to.equal(
      'A loader must resolve to an array of rows, but got { rows: [] } (entry "value"). ' +
        'Return the rows of all ids in one array; without rows, return an empty array.',
    );
  });
});

describe('a fetch returns and reports, and an explicit fill rejects,', () => {
  async function refused(value: unknown, options: { maxValueBytes?: number } = {}) {
    const lent = lendCache(options);
    const fills: FillEvent[] = [];
    lent.cache.on('fill', (event) => fills.push(event));
    lent.rows.set(1, value);
    expect(await lent.value.fetch({ item: 1 })).to.equal(value);
    await lent.cache.settled();
    expect(fills).to.have.length(1);
    const looked = await lent.value.lookup({ item: 1 });
    if (looked.outcome !== 'miss') throw new Error('expected a miss');
    const thrown = await lent.value.fill(looked.vector, value).catch((error: unknown) => error);
    expect((thrown as Error).message).to.equal(fills[0]!.error!.message);
    return fills[0]!;
  }

  it('a value that would not come back identical', async () => {
    class Money {}
    const { refusalReasons, error } = await refused({ lines: [{ price: new Money() }] });
    expect(refusalReasons).to.deep.equal({ unencodable: 1 });
    expect(error).to.deep.include({ code: 'UNENCODABLE_VALUE', path: 'value.lines[0].price' });
  });

  it('a value over the size limit', async () => {
    const { refusalReasons, error } = await refused('x'.repeat(2_000), { maxValueBytes: 1_000 });
    expect(refusalReasons).to.deep.equal({ oversized: 1 });
    expect(error).to.deep.include({ code: 'OVERSIZED_VALUE', bytes: 2_010, maxValueBytes: 1_000 });
    expect(error!.message).to.equal(
      'An encoded value must have at most 1000 bytes (maxValueBytes), but got 2010 (entry "value" at item=1). ' +
        'Cache less of it, split it by a key, or raise maxValueBytes.',
    );
  });

  it('one that its schema refuses', async () => {
    const { cache, items } = lendItems();
    const fills: FillEvent[] = [];
    cache.on('fill', (event) => fills.push(event));
    const value = items.one('value', {
      load: async (ids) => ids.map(({ item }) => ({ item, price: 'free' })),
      by: ({ item }) => ({ item }),
      schema: priceIsNumber,
    });
    expect(await value.fetch({ item: 1 })).to.deep.equal({ item: 1, price: 'free' });
    expect(fills[0]).to.deep.include({ refusalReasons: { schema: 1 }, refused: 1, fills: 0 });
    expect(fills[0]!.error!.message).to.equal(
      "A value must match the entry's schema, but does not at price: expected a number. " +
        "Raise the cache's schemaVersion when the shape of values changes.",
    );
  });
});

/** A schema such as zod, valibot and arktype make, in a few lines. */
const priceIsNumber = {
  '~standard': {
    version: 1 as const,
    vendor: 'spec',
    validate: (value: unknown) =>
      typeof (value as { price: unknown }).price === 'number'
        ? { value }
        : { issues: [{ message: 'expected a number', path: ['price'] }] },
  },
};

describe('an unusable entry in Redis is a miss, counted and logged,', () => {
  async function spoiled(spoil: (redis: ReturnType<typeof lendRedis>, key: string) => Promise<unknown>) {
    const lines: string[] = [];
    const log = { debug() {}, info() {}, warn: (line: string) => lines.push(line), error() {} };
    const lent = lendCache({ log });
    const redis = lendRedis();
    const failures: DecodeFailureEvent[] = [];
    lent.cache.on('decodeFailure', (event) => failures.push(event));
    lent.rows.set(1, { name: 'one' });
    await lent.value.fetch({ item: 1 });
    await lent.cache.settled();
    const [key] = await redis.keys(`gencache:{${lent.name}:0}:e:*`);
    lines.length = 0;
    await spoil(redis, key!);
    expect(await lent.value.fetch({ item: 1 })).to.deep.equal({ name: 'one' });
    await lent.cache.settled();
    return { ...lent, redis, key: key!, failures, lines };
  }

  const reasons: [string, string, (bytes: Buffer) => Buffer][] = [
    ['corrupted', 'checksum', (bytes) => Buffer.concat([bytes.subarray(0, -1), Buffer.from('!')])],
    ['truncated', 'truncated', (bytes) => bytes.subarray(0, 5)],
    ['cut', 'checksum', (bytes) => bytes.subarray(0, -3)],
    ['foreign', 'foreign', () => Buffer.from('{"name":"somebody else"}')],
    ['older-format', 'format', (bytes) => Buffer.concat([bytes.subarray(0, 2), Buffer.of(0), bytes.subarray(3)])],
  ];
  for (const [what, reason, change] of reasons) {
    it(`and replaced, if it is ${what}`, async () => {
      const { failures, lines, cache, loads, value, name } = await spoiled(async (redis, key) =>
        redis.set(key, change((await redis.getBuffer(key))!), 'KEEPTTL'),
      );
      expect(failures.map((failure) => failure.reason)).to.deep.equal([reason]);
      expect(lines).to.deep.equal([`${name}: value at item=1 can't be used: ${failures[0]!.message}`]);
      expect(cache.statistics.total('decode_failures', { reason, entry: 'value' })).to.equal(1);
      expect(await value.fetch({ item: 1 })).to.deep.equal({ name: 'one' });
      expect(loads).to.have.length(2);
    });
  }

  it('and left alone, if it is of another type', async () => {
    const { cache, redis, key, lines, name } = await spoiled(async (client, entry) => {
      await client.del(entry);
      await client.hset(entry, 'not', 'ours');
    });
    expect(await redis.hgetall(key)).to.deep.equal({ not: 'ours' });
    expect(cache.statistics.total('refused_fills', { reason: 'foreign' })).to.equal(1);
    expect(lines).to.deep.equal([
      `${name}: 1 value not stored: foreign: The key of an entry must hold a string, but holds another type. ` +
        'The key stays as it is, and every read loads the entry. ' +
        'Find the program that writes this key; delete the key if no program needs it.',
    ]);
  });

  it('one that its schema refuses', async () => {
    const name = uniqueName();
    const declare = (schema: boolean) => {
      const cache = new GenerationalCache({ name, store: redisStore(lendRedis()), readDeadlineMs: READ_DEADLINE_MS });
      lend({ what: 'the cache', close: () => cache.close() });
      const value = cache.namespace('item', integer()).one('value', {
        load: async (ids) => ids.map(({ item }) => (schema ? { item, price: 1 } : { item })),
        by: ({ item }) => ({ item }),
        ...(schema ? { schema: priceIsNumber } : {}),
      });
      return { cache, value };
    };
    const old = declare(false);
    await old.value.fetch({ item: 1 });
    await old.cache.settled();
    const current = declare(true);
    expect(await current.value.fetch({ item: 1 })).to.deep.equal({ item: 1, price: 1 });
    expect(current.cache.statistics.total('decode_failures', { reason: 'schema' })).to.equal(1);
  });
});

describe('a malformed generation', () => {
  for (const [what, plant] of [
    ['of another type', (redis, key) => redis.lpush(key, 'not ours')],
    ['of another form', (redis, key) => redis.set(key, '7')],
  ] as [string, (redis: ReturnType<typeof lendRedis>, key: string) => Promise<unknown>][]) {
    it(`${what} makes readers bypass until a bump deletes it`, async () => {
      const lines: string[] = [];
      const log = { debug() {}, info() {}, warn: (line: string) => lines.push(line), error() {} };
      const { name, cache, value, rows, items } = lendCache({ log });
      const redis = lendRedis();
      const key = `gencache:{${name}:0}:g:item=1`;
      lend({ what: 'the key', close: () => redis.del(key) });
      await plant(redis, key);
      const dump = await redis.dump(key);
      rows.set(1, 'one').set(2, 'two');
      expect(await value.fetchMany([{ item: 1 }, { item: 2 }])).to.deep.equal(['one', 'two']);
      expect(cache.statistics.total('bypasses')).to.equal(1);
      expect(lines.filter((line) => !line.includes('maxmemory'))).to.deep.equal([
        `${name}: value at item=1 can't be used: The value at ${key} must be a generation (digits, a dot and 16 ` +
          'base64url characters, in a string), but is of another form. Reads go to the source, without a fill. ' +
          'Find the program that writes this key; delete the key if no program needs it.',
      ]);
      expect(cache.statistics.total('decode_failures', { reason: 'foreign_generation' })).to.equal(1);
      await cache.settled();
      expect(await redis.dump(key)).to.deep.equal(dump);
      rows.set(1, 'newer').set(2, 'newer');
      await items.bumpMany([{ item: 1 }, { item: 2 }]);
      expect(lines.at(-1)).to.equal(
        `${name}: A bump deleted 1 foreign value at the keys of generations, first that of item=1. Readers load again. ` +
          'Find the program that writes there, unless a later release runs beside this one.',
      );
      expect(await redis.exists(key)).to.equal(0);
      expect(await value.fetchMany([{ item: 1 }, { item: 2 }])).to.deep.equal(['newer', 'newer']);
      expect(cache.statistics.total('bypasses')).to.equal(1);
    });
  }
});
