/**
 * The equality of ids. A model of each kind, independent of the implementation, gives a name to every id that the kind can
 * hold, the same name to equal ids, and undefined to all other ids. Property tests compare scopes with the model.
 */
import { expect } from 'chai';
import fc from 'fast-check';
import { GenerationalCache, type IdKind, int4, integer, memoryStore, nullable, text, uuid } from '../../lib/index.js';
import { uniqueName } from '../support/redis.js';
import { thrown } from '../support/rejection.js';

type Model = (input: unknown) => string | undefined;

const INT64 = { least: -9_223_372_036_854_775_808n, most: 9_223_372_036_854_775_807n };

/** An integer of 64 bits in any form; as a number only where numbers are exact. */
const integerModel: Model = (input) => {
  let value: bigint;
  if (typeof input === 'bigint') value = input;
  else if (typeof input === 'number' && Math.abs(input) <= 9_007_199_254_740_991 && Math.floor(input) === input) {
    value = BigInt(input);
  } else if (typeof input === 'string' && /^[-0-9]+$/.test(input) && !/^-?$|.-/.test(input)) {
    value = BigInt(input);
    if (value.toString() !== input) return undefined; // "042", "-0"
  } else return undefined;
  return value >= INT64.least && value <= INT64.most ? `integer ${value}` : undefined;
};

/** As an integer, within 32 bits. */
const int4Model: Model = (input) => {
  const integer = integerModel(input);
  if (integer === undefined) return undefined;
  const value = BigInt(integer.slice('integer '.length));
  return value >= -2_147_483_648n && value <= 2_147_483_647n ? integer : undefined;
};

const textModel: Model = (input) => (typeof input === 'string' ? `text ${input}` : undefined);

const uuidModel: Model = (input) => {
  if (typeof input !== 'string') return undefined;
  const digits = new Set('0123456789abcdefABCDEF');
  const groups = input.split('-');
  const lengths = groups.map((group) => group.length).join();
  if (lengths !== '8,4,4,4,12' || !groups.every((group) => [...group].every((c) => digits.has(c)))) return undefined;
  return `uuid ${groups.map((group) => BigInt(`0x${group}`)).join()}`;
};

const orNull =
  (model: Model): Model =>
  (input) =>
    input === null ? 'null' : model(input);

const KINDS: { readonly kind: IdKind<never, unknown>; readonly model: Model }[] = [
  { kind: integer() as never, model: integerModel },
  { kind: int4() as never, model: int4Model },
  { kind: nullable(int4()) as never, model: orNull(int4Model) },
  { kind: text() as never, model: textModel },
  { kind: uuid() as never, model: uuidModel },
  { kind: nullable(integer()) as never, model: orNull(integerModel) },
  { kind: nullable(text()) as never, model: orNull(textModel) },
  { kind: nullable(uuid()) as never, model: orNull(uuidModel) },
];

const UUID = '0a8F1c2d-0b4e-4c6a-9d11-FFeeDDccBBaa';

/** Ids that users pass, and ids that a kind must reject; many of them look alike. */
const SPECIMENS: readonly unknown[] = [
  ...[0, -0, 1, -1, 42, 7.5, NaN, Infinity, 2 ** 53, 2 ** 53 - 1, -(2 ** 53), 1e21],
  ...[0n, -1n, 42n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, -(2n ** 63n), -(2n ** 63n) - 1n, 10n ** 30n],
  ...[2 ** 31 - 1, 2 ** 31, -(2 ** 31), -(2 ** 31) - 1, 2n ** 31n, String(2 ** 31 - 1), String(2 ** 31)],
  ...['0', '-0', '-1', '42', '042', '+42', ' 42', '42 ', '42\n', '4_2', '4.2e1', '0x2a', '٤٢'],
  ...[String(2n ** 53n), String(2n ** 63n), String(2n ** 63n - 1n), '9'.repeat(10_000)],
  ...['', 'null', 'undefined', 'NaN', '~', '%', '%7E', '~7E', '%h', '%u', '%00', '\0', 'a\nb', 'a\r\nb', '\u2028'],
  ...['1:2', '1/2', '1=2', '1,2', '{1}', '}', '{', '1/environment=2', 'a b', 'a+b', 'a%20b', 'é', 'e\u0301', 'É', '💥'],
  ...['\ud83d', '\udca5', '\udca5\ud83d', '\ud83d\ud83d', '%uD83D', '\ufffd', 'A', 'a', '*', "'", '(', ')', '!'],
  ...['x'.repeat(199), 'x'.repeat(200), 'x'.repeat(201), 'x'.repeat(10_240), 'é'.repeat(10_240), ':'.repeat(67)],
  ...[UUID, UUID.toLowerCase(), UUID.toUpperCase(), UUID.replaceAll('-', ''), `{${UUID}}`, `${UUID} `, UUID.slice(1)],
  ...[null, undefined, true, false, [], [42], {}, { detector: 42 }, Symbol('42'), () => 42, new Date(0), Object(42)],
];

const anyId = fc.oneof(
  fc.constantFrom(...SPECIMENS),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.double(),
  fc.bigInt({ min: -(2n ** 65n), max: 2n ** 65n }),
  fc.bigInt({ min: -(2n ** 65n), max: 2n ** 65n }).map(String),
  fc.maxSafeInteger().map(String),
  fc.string({ unit: 'binary' }),
  fc.string({ unit: fc.constantFrom(...':/=,{}%~-+_.!*()\'"\\ \n\0\ud83d\udca5éAaZz0429uh') }),
  fc.string({ unit: 'grapheme', minLength: 150, maxLength: 400 }),
  fc.uuid(),
  fc.uuid().map((id) => id.toUpperCase()),
  fc.anything(),
);

/** Two ids that are often equal, in the same or in different forms. */
const twoIds = fc.oneof(
  fc.tuple(anyId, anyId),
  fc.tuple(fc.constantFrom(...SPECIMENS), fc.constantFrom(...SPECIMENS)),
  anyId.map((id) => [id, id] as const),
  fc
    .bigInt({ min: INT64.least, max: INT64.most })
    .chain((id) => fc.tuple(...[0, 1].map(() => fc.constantFrom(id, String(id), Number(id))))),
  fc.uuid().map((id) => [id, id.toUpperCase()] as const),
);

function namespaceOf(kind: IdKind<never, unknown>) {
  return new GenerationalCache({ name: uniqueName(), store: memoryStore() }).namespace('detector', kind);
}

describe('id kinds', () => {
  for (const { kind, model } of KINDS) {
    describe(kind.name, () => {
      const namespace = namespaceOf(kind);
      const scopeOf = (id: unknown) => namespace.scope({ detector: id as never });

      it('maps two ids to one scope if and only if they are the same id', () => {
        fc.assert(
          fc.property(twoIds, ([one, other]) => {
            fc.pre(model(one) !== undefined && model(other) !== undefined);
            const same = scopeOf(one).path === scopeOf(other).path;
            expect(same).to.equal(model(one) === model(other));
          }),
          { numRuns: 1_000 },
        );
        const byScope = new Map<string, string>();
        for (const id of SPECIMENS) {
          const expected = model(id);
          if (expected === undefined) continue;
          const { path } = scopeOf(id);
          expect(byScope.get(path) ?? expected, path).to.equal(expected);
          byScope.set(path, expected);
        }
        const distinct = new Set(SPECIMENS.map(model).filter((id) => id !== undefined));
        expect(byScope.size).to.equal(distinct.size);
      });

      it('rejects an id that it can’t hold, and accepts every other', () => {
        fc.assert(
          fc.property(anyId, (id) => {
            if (model(id) === undefined) expect(thrown(() => scopeOf(id))).to.include({ code: 'ID', id: 'detector' });
            else scopeOf(id);
          }),
          { numRuns: 1_000 },
        );
      });

      it('gives loaders one canonical value of each id, which is the same id', async () => {
        const asked: unknown[] = [];
        const entry = namespaceOf(kind).one('value', {
          load: async (ids) => {
            asked.push(...ids.map((id) => id.detector));
            return [];
          },
          by: () => ({}) as never,
        });
        const held = SPECIMENS.filter((id) => model(id) !== undefined);
        await entry.fetchMany(held.map((id) => ({ detector: id as never })));
        expect(asked.map(model).toSorted()).to.deep.equal([...new Set(held.map(model))].toSorted());
        for (const id of asked) expect(kind.value(id), 'canonical').to.equal(id);
      });

      it('writes ids into keys without separators, in at most 200 characters', () => {
        fc.assert(
          fc.property(anyId, (id) => {
            fc.pre(model(id) !== undefined);
            expect(scopeOf(id).path).to.match(/^detector=[A-Za-z0-9_.%~-]{0,200}$/);
          }),
          { numRuns: 1_000 },
        );
      });
    });
  }

  it('give loaders a number for each int4, and the same path as for an integer', () => {
    for (const id of [7, 7n, '7', -(2 ** 31), String(2 ** 31 - 1)]) {
      expect(int4().value(id)).to.equal(Number(id));
      const paths = [int4(), integer()].map((kind) => namespaceOf(kind as never).scope({ detector: id as never }).path);
      expect(paths[0]).to.equal(paths[1]);
    }
    expect(thrown(() => namespaceOf(int4() as never).scope({ detector: (2 ** 31) as never }))).to.have.property(
      'message',
      'The id "detector" must be an integer from -2147483648 to 2147483647, as a number, a bigint or canonical decimal text ' +
        '(kind int4), but got 2147483648. Pass an id of that kind, or declare the namespace with the kind its ids have.',
    );
  });

  it('map the integers 42, 42n and "42" to one scope, and the texts "42" and "042" to two', () => {
    const cache = new GenerationalCache({ name: uniqueName(), store: memoryStore() });
    const numbered = cache.namespace('detector', integer());
    const paths = [42, 42n, '42'].map((id) => numbered.scope({ detector: id }).path);
    expect(new Set(paths)).to.deep.equal(new Set(['detector=42']));
    const named = cache.namespace('label', text());
    expect(named.scope({ label: '42' }).path).to.equal('label=42');
    expect(named.scope({ label: '042' }).path).to.equal('label=042');
  });

  it('keep null apart from the texts "null", "" and "~"', () => {
    const namespace = namespaceOf(nullable(text()) as never);
    const paths = [null, 'null', '', '~', '%7E'].map((id) => namespace.scope({ detector: id as never }).path);
    expect(paths).to.deep.equal(['detector=~', 'detector=null', 'detector=', 'detector=%7E', 'detector=%257E']);
  });

  it('hash a text of 10 kB of lone surrogates without delay', () => {
    // A search of the whole text for each surrogate took 15 s.
    const ids = ['\ud83d'.repeat(10_240), '\ud83d'.repeat(10_241), '\udca5'.repeat(10_240)];
    const namespace = namespaceOf(text() as never);
    const paths = ids.map((id) => namespace.scope({ detector: id as never }).path);
    expect(new Set(paths)).to.have.property('size', 3);
    for (const path of paths) expect(path).to.match(/^detector=%h[0-9a-f]{64}$/);
  });
});
