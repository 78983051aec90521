/**
 * The keys: a golden list that fails when the grammar changes, and properties that no list can show. A change of the
 * grammar costs every user a cold cache, and loses the bumps of relays and triggers of the old grammar.
 */
import { createHash } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import {
  type Entry,
  GenerationalCache,
  integer,
  memoryStore,
  nullable,
  type Scope,
  text,
  uuid,
} from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { boundOf, freshnessKey, keyPrefix, markKey } from '../../lib/model/key.js';
import type { RegisteredScope } from '../../lib/model/scope-registry.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { recordCommands } from '../support/commands.js';
import { lend } from '../support/lenders.js';
import { lendRedis, redisUrl, uniqueName } from '../support/redis.js';
import { thrown } from '../support/rejection.js';

/** The key of a scope's generation, which the public type does not show. */
function keyOfScope(scope: Scope): string {
  return (scope as RegisteredScope).generationKey;
}

const rows = { load: async () => [], by: () => ({}) as never };

/** A hierarchy with every kind of declaration. */
function declare(options: { name?: string; schemaVersion?: number } = {}) {
  const cache = new GenerationalCache({ name: 'workflow_engine', store: memoryStore(), ...options });
  const detectors = cache.namespace('detector', integer());
  const environments = detectors.namespace('environment', nullable(integer()));
  const labels = cache.namespace('label', text());
  const tokens = labels.namespace('token', uuid());
  return {
    ...{ cache, detectors, environments, labels, tokens },
    totals: cache.one('totals', rows),
    setting: cache.one('setting', { ...rows, key: { name: nullable(text()), part: integer() } }),
    workflows: environments.list('workflows', rows),
    detector: detectors.one('detector', rows),
    tagged: detectors.one('tagged', {
      ...rows,
      dependsOn: () => [labels.scope({ label: 'a:b' }), tokens.scope({ label: 'a:b', token: TOKEN })],
    }),
  };
}

const TOKEN = '0a8f1c2d-0b4e-4c6a-9d11-ffeeddccbbaa';

/** An entry's key, with `<n>` for the n generations of its vector. */
async function keyOf<Ids extends object>(entry: Entry<Ids, unknown>, ids: Ids): Promise<string> {
  const looked = await entry.lookup(ids);
  if (looked.outcome === 'bypass') throw new Error('A lookup in memory is no bypass.');
  const { entryKey, generations } = looked.vector;
  expect(entryKey.endsWith(`:${generations.join(',')}`)).to.equal(true);
  return `${entryKey.slice(0, -generations.join(',').length)}<${generations.length}>`;
}

describe('keys', () => {
  it('have a documented form for a bound and for the mark', () => {
    const prefix = keyPrefix('workflow_engine');
    expect(freshnessKey(prefix, 5_000)).to.equal('gencache:{workflow_engine:0}:f:5000');
    expect(boundOf(freshnessKey(prefix, 5_000))).to.equal(5_000);
    expect(markKey(prefix)).to.equal('gencache:{workflow_engine:0}:m');
  });

  it('have a documented form for generations', () => {
    const { cache, detectors, environments, labels, tokens } = declare();
    const sha256 = (escaped: string) => createHash('sha256').update(escaped).digest('hex');
    expect(
      [
        cache.scope(),
        detectors.scope({ detector: 42 }),
        detectors.scope({ detector: -42n }),
        detectors.scope({ detector: '9223372036854775807' }),
        environments.scope({ detector: 42, environment: 7 }),
        environments.scope({ detector: 42, environment: null }),
        labels.scope({ label: '' }),
        labels.scope({ label: 'a.b-c_D' }),
        labels.scope({ label: 'a:b/c=d,e{f}g%h~i j\n' }),
        labels.scope({ label: "!*'()~" }),
        labels.scope({ label: 'é💥\ud83d\0' }),
        labels.scope({ label: ':'.repeat(66) }),
        labels.scope({ label: ':'.repeat(67) }),
        labels.scope({ label: 'x'.repeat(200) }),
        labels.scope({ label: 'x'.repeat(201) }),
        tokens.scope({ label: 'null', token: TOKEN.toUpperCase() }),
      ].map(keyOfScope),
    ).to.deep.equal(
      [
        '',
        'detector=42',
        'detector=-42',
        'detector=9223372036854775807',
        'detector=42/environment=7',
        'detector=42/environment=~',
        'label=',
        'label=a.b-c_D',
        'label=a%3Ab%2Fc%3Dd%2Ce%7Bf%7Dg%25h%7Ei%20j%0A',
        'label=%21%2A%27%28%29%7E',
        'label=%C3%A9%F0%9F%92%A5%uD83D%00',
        `label=${'%3A'.repeat(66)}`,
        `label=%h${sha256('%3A'.repeat(67))}`,
        `label=${'x'.repeat(200)}`,
        `label=%h${sha256('x'.repeat(201))}`,
        `label=null/token=${TOKEN}`,
      ].map((path) => `gencache:{workflow_engine:0}:g:${path}`),
    );
  });

  it('have a documented form for entries', async () => {
    const { totals, setting, workflows, detector, tagged } = declare();
    const raised = declare({ schemaVersion: 12, name: 'Shop.eu-1' });
    expect(
      await Promise.all([
        keyOf(totals, {}),
        keyOf(setting, { name: 'a,b:c', part: 1 }),
        keyOf(setting, { name: null, part: '2' }),
        keyOf(detector, { detector: '42' }),
        keyOf(workflows, { detector: 42, environment: 7 }),
        keyOf(workflows, { detector: 42, environment: null }),
        keyOf(tagged, { detector: 42 }), // global, detector; label and token below it
        keyOf(raised.detector, { detector: 42 }),
      ]),
    ).to.deep.equal([
      'gencache:{workflow_engine:0}:e:1::totals:<1>',
      'gencache:{workflow_engine:0}:e:1::setting,a%2Cb%3Ac,1:<1>',
      'gencache:{workflow_engine:0}:e:1::setting,~,2:<1>',
      'gencache:{workflow_engine:0}:e:1:detector=42:detector:<2>',
      'gencache:{workflow_engine:0}:e:1:detector=42/environment=7:workflows:<3>',
      'gencache:{workflow_engine:0}:e:1:detector=42/environment=~:workflows:<3>',
      'gencache:{workflow_engine:0}:e:1:detector=42:tagged:<4>',
      'gencache:{Shop.eu-1:0}:e:12:detector=42:detector:<2>',
    ]);
  });

  it('of generations are shared by two schema versions, and keys of entries are not', async () => {
    const [old, young] = [declare({ schemaVersion: 1 }), declare({ schemaVersion: 2 })];
    const ids = { detector: 42 };
    expect(keyOfScope(old.detectors.scope(ids))).to.equal(keyOfScope(young.detectors.scope(ids)));
    expect(await keyOf(old.detector, ids)).to.not.equal(await keyOf(young.detector, ids));
  });

  const anyText = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.string({ unit: fc.constantFrom(...':/=,{}%~-+_.!*()\'"\\ \n\0\ud83d\udca5éAaZz0429uh') }),
    fc.constantFrom('1/token=2', 'a:b', '}', '', '~', 'null', 'x'.repeat(10_240), '%'.repeat(70)),
  );

  it('can be parsed into their parts without the declarations of the namespaces', async () => {
    const cache = new GenerationalCache({ name: uniqueName(), store: memoryStore() });
    const inner = cache.namespace('label', text()).namespace('part', nullable(text()));
    const entry = inner.one('value', { ...rows, key: { name: text() } });
    await fc.assert(
      fc.asyncProperty(anyText, fc.option(anyText), anyText, async (label, part, name) => {
        const scope = inner.scope({ label, part });
        const { path } = scope;
        const generationKey = keyOfScope(scope);
        expect(generationKey).to.match(/^gencache:\{[^{}:]+:0\}:g:[^{}:,]*$/);
        const segments = path.split('/').map((segment) => segment.split('='));
        expect(segments.map(([namespace]) => namespace)).to.deep.equal(['label', 'part']);
        expect(segments.map((segment) => segment.length)).to.deep.equal([2, 2]);
        for (const [which, value] of [label, part].entries()) {
          const escaped = segments[which]![1]!;
          if (value === null) expect(escaped).to.equal('~');
          else if (!/%[uh]/.test(escaped)) expect(decodeURIComponent(escaped)).to.equal(value);
        }
        const key = await keyOf(entry, { label, part, name });
        const [, version, where, place, vector] = key.slice(key.indexOf('}:') + 2).split(':');
        expect([version, where, place!.split(',')[0], place!.split(',').length, vector]).to.deep.equal([
          ...['1', path, 'value', 2, '<3>'],
        ]);
      }),
      { numRuns: 500 },
    );
  });

  it('differ between entries of other ids, of another name or of another key', async () => {
    const cache = new GenerationalCache({ name: uniqueName(), store: memoryStore() });
    const labels = cache.namespace('label', text());
    const parts = labels.namespace('part', nullable(text()));
    const key = { name: text(), more: nullable(text()) };
    const entries = {
      'label value': labels.one('value', { ...rows, key }),
      'part value': parts.one('value', { ...rows, key }),
      'part other': parts.one('other', { ...rows, key }),
    };
    type Place = readonly [keyof typeof entries, string, string | null, string, string | null];
    const keyAt = ([which, label, part, name, more]: Place) =>
      keyOf(entries[which], { label, ...(which === 'label value' ? {} : { part }), name, more } as never);
    const few = fc.oneof(fc.constantFrom('', ',', ':', '/', '~', '%', '1', '1,2', '1/part=2', 'null'), anyText);
    const place = fc.tuple(
      fc.constantFrom(...(Object.keys(entries) as (keyof typeof entries)[])),
      ...([few, fc.option(few), few, fc.option(few)] as const),
    );
    await fc.assert(
      fc.asyncProperty(place, place, async (one, other) => {
        const identity = ([which, label, part, name, more]: Place) =>
          JSON.stringify([which, label, which === 'label value' ? '' : part, name, more]);
        expect((await keyAt(one)) === (await keyAt(other))).to.equal(identity(one) === identity(other));
      }),
      { numRuns: 500 },
    );
  });

  it('of one command share a hash tag, as Redis Cluster demands', async () => {
    const name = uniqueName();
    const store = redisStore(lendRedis({ lazyConnect: true }));
    const cache = new GenerationalCache({ name, store, readDeadlineMs: READ_DEADLINE_MS });
    lend({ what: `the cache ${name}`, close: () => cache.close() });
    const labels = cache.namespace('label', text());
    const entry = labels.one('value', rows);
    await labels.bump({ label: 'connected' });
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        await entry.fetchMany(['}', '{x}', '{', 'plain'].map((label) => ({ label })));
        await cache.settled();
        await labels.bumpMany([{ label: '}' }, { label: '{x}' }]);
      },
      { from: name },
    );
    const keys = commands.flat().filter((argument) => argument.startsWith('gencache:'));
    expect(keys.length).to.be.above(10);
    expect(new Set(keys.map((key) => /\{([^}]*)\}/.exec(key)![1]))).to.deep.equal(new Set([`${name}:0`]));
  });
});

describe('ids of a call', () => {
  const { environments, detectors, labels, workflows, setting } = declare();
  const scope = (ids: unknown) => thrown(() => environments.scope(ids as never));

  it('are rejected with an IdError when one is missing', () => {
    expect(scope({ detector: 42 })).to.include({
      name: 'IdError',
      code: 'ID',
      id: 'environment',
      message:
        'Ids must name every namespace from the root down, but got { detector: 42 } without "environment". ' +
        'Add it, or use the namespace above it.',
    });
    expect(scope({ detector: 42, environment: undefined })).to.include({
      id: 'environment',
      message:
        'Ids must name every namespace from the root down, but got { detector: 42, environment: undefined }, in which ' +
        '"environment" is undefined. Add it, or use the namespace above it.',
    });
  });

  it('are rejected when one is unknown', () => {
    expect(scope({ detector: 42, environment: 7, workflow: 9 })).to.include({
      name: 'IdError',
      code: 'ID',
      id: 'workflow',
      message:
        'Ids must name only detector, environment, but got "workflow" in ' +
        '{ detector: 42, environment: 7, workflow: 9 }. ' +
        'Leave it out, or use the namespace that declares it.',
    });
    expect(thrown(() => detectors.scope({ detector: 42, environment: 7 } as never))).to.include({ id: 'environment' });
  });

  it('are rejected when one is inherited, which no plain object has', () => {
    const ids = Object.assign(Object.create({ more: 1 }) as object, { detector: 42, environment: 7 });
    expect(scope(ids)).to.include({ code: 'ID', id: 'an inherited property' });
  });

  it('are rejected when one is of the wrong kind', () => {
    expect(scope({ detector: '42a', environment: null })).to.include({
      name: 'IdError',
      code: 'ID',
      id: 'detector',
      message:
        'The id "detector" must be a safe integer, or a bigint or canonical decimal text within 64 bits ' +
        "(kind integer), but got '42a'. Pass an id of that kind, or declare the namespace with the kind its ids have.",
    });
    expect(scope({ detector: 42, environment: 1.5 })).to.include({
      id: 'environment',
      message:
        'The id "environment" must be a safe integer, or a bigint or canonical decimal text within 64 bits, or null ' +
        '(kind nullable integer), but got 1.5. Pass an id of that kind, or declare the namespace with the kind its ids have.',
    });
    expect(thrown(() => labels.scope({ label: 42 as never }))).to.include({
      id: 'label',
      message:
        'The id "label" must be a string (kind text), but got 42. ' +
        'Pass an id of that kind, or declare the namespace with the kind its ids have.',
    });
  });

  it('are rejected when they are no object', () => {
    for (const [ids, shown] of [
      [42, '42'],
      [null, 'null'],
      [undefined, 'undefined'],
      ['detector=42', "'detector=42'"],
    ] as const) {
      expect(scope(ids)).to.include({
        name: 'IdError',
        code: 'ID',
        id: 'detector',
        message:
          'Ids must be an object that names the namespaces from the root down, { detector, environment }, ' +
          `but got ${shown}. Pass such an object.`,
      });
    }
  });

  it('are rejected when they are an array', () => {
    expect(scope([42, 7])).to.include({
      code: 'ID',
      message:
        'Ids must name every namespace from the root down, but got [ 42, 7 ] without "detector". ' +
        'Add it, or use the namespace above it.',
    });
  });

  it('reject a fetch and a bump alike, and cover the ids of an entry’s key', async () => {
    const failed = async (work: Promise<unknown>) => (await work.catch((error: unknown) => error)) as Error;
    expect(await failed(workflows.fetch({ detector: 42 } as never))).to.include({ code: 'ID', id: 'environment' });
    expect(await failed(environments.bump({ detector: 42 } as never))).to.include({ code: 'ID', id: 'environment' });
    expect(await failed(setting.fetch({ name: 'a' } as never))).to.include({ code: 'ID', id: 'part' });
    expect(await failed(setting.fetch({ name: 'a', part: 1, other: 2 } as never))).to.include({ id: 'other' });
  });

  it('of an entry are rejected with the remedy of an entry', async () => {
    const message = async (work: Promise<unknown>) => ((await work.catch((error: unknown) => error)) as Error).message;
    expect(await message(workflows.fetch({ detector: 42 } as never))).to.equal(
      'Ids must name every namespace from the root down, but got { detector: 42 } without "environment". ' +
        'Add it, or declare the entry on the namespace above it.',
    );
    expect(await message(setting.fetch({ name: 'a' } as never))).to.equal(
      "Ids must name every id of the entry's `key`, but got { name: 'a' } without \"part\". Add it.",
    );
    expect(await message(setting.fetch({ name: 'a', part: undefined } as never))).to.equal(
      "Ids must name every id of the entry's `key`, but got { name: 'a', part: undefined }, in which \"part\" is " +
        'undefined. Add it.',
    );
    expect(await message(setting.fetch({ name: 'a', part: 1.5 } as never))).to.match(
      /^The id "part" must be .* but got 1\.5\. Pass an id of that kind, or declare it in `key` with the kind its ids have\.$/,
    );
  });
});
