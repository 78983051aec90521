/** The types that the compiler must infer, and the calls that it must refuse. `npm run test:types` checks this file; it never runs. */
import { expectTypeOf } from 'expect-type';
import type { Knex } from 'knex';
import {
  type Committed,
  GenerationalCache,
  int4,
  integer,
  memoryStore,
  nullable,
  type Outcome,
  text,
  type Vector,
} from '../../lib/index.js';
import { changed, knexSource, onChangeOf, startRelay, withGenerations } from '../../lib/knex/index.js';
import {
  type ActionFilter,
  ActionFilterCache,
  type Detector,
  DetectorCache,
  type Workflow,
  WorkflowCache,
} from '../../lib/workflow-engine/index.js';

declare const db: Knex;

interface SettingRow {
  readonly tenant: string;
  readonly name: string;
  readonly value: string;
}

const cache = new GenerationalCache({ name: 'types', store: memoryStore(), source: knexSource(db) });
const detectors = cache.namespace('detector', integer());
const environments = detectors.namespace('environment', nullable(integer()));
const tenants = cache.namespace('tenant', text());

// --- inferred types

const names = environments.list('names', {
  load: async (ids, context) => {
    expectTypeOf(ids[0]!.detector).toEqualTypeOf<number | string>();
    expectTypeOf(ids[0]!.environment).toEqualTypeOf<number | string | null>();
    expectTypeOf(context.db).toEqualTypeOf<Knex>();
    return [{ detector_id: '42', environment_id: null, name: 'x' }];
  },
  by: (row) => ({ detector: row.detector_id, environment: row.environment_id }),
  value: (row) => row.name,
});
expectTypeOf(names.fetch({ detector: 42, environment: null })).resolves.toEqualTypeOf<string[]>();
expectTypeOf(names.fetchMany([{ detector: 42n, environment: '7' }])).resolves.toEqualTypeOf<string[][]>();

const settings = tenants.one('setting', {
  key: { setting: text() },
  load: async (ids) => {
    expectTypeOf(ids[0]!.setting).toEqualTypeOf<string>();
    return [] as SettingRow[];
  },
  by: (row) => ({ tenant: row.tenant, setting: row.name }),
});
expectTypeOf(settings.fetch({ tenant: 'a', setting: 'b' })).resolves.toEqualTypeOf<SettingRow | undefined>();
expectTypeOf(settings.lookup({ tenant: 'a', setting: 'b' })).resolves.toEqualTypeOf<Outcome<SettingRow | undefined>>();

const workflows = new WorkflowCache(cache);
expectTypeOf(workflows.getWorkflowsByDetectors([1, 2n, '3'], null)).resolves.toEqualTypeOf<Workflow[][]>();
const bySource = new DetectorCache(cache).getDetectorsByDataSources([{ type: 'metric', sourceId: 'cpu' }]);
expectTypeOf(bySource).resolves.toEqualTypeOf<Detector[][]>();
const filters = new ActionFilterCache(cache).getActionFiltersByWorkflows([1, 2n, '3']);
expectTypeOf(filters).resolves.toEqualTypeOf<ActionFilter[][]>();

const numbered = cache.namespace('number', int4()).namespace('part', nullable(int4()));
numbered.list('parts', {
  load: async (ids) => {
    expectTypeOf(ids[0]!.number).toEqualTypeOf<number>();
    expectTypeOf(ids[0]!.part).toEqualTypeOf<number | null>();
    return [{ number: 1, part: null }];
  },
  by: (row) => row,
});
expectTypeOf(numbered.bump({ number: '42', part: 7n })).resolves.toEqualTypeOf<void>();

// --- `await using`
expectTypeOf(cache).toExtend<AsyncDisposable>();
expectTypeOf(startRelay).returns.toExtend<AsyncDisposable>();

// --- writes
expectTypeOf(cache.transaction(async () => 7, { strict: true })).resolves.toEqualTypeOf<Committed<number>>();
void cache.transaction((trx) => detectors.bump({ detector: 42 }, { trx, cause: 'import' }));
void onChangeOf(db, 'link', { cache: 'types' })
  .lookUp('other', { id: 'link_id' })
  .bump({ detector: 'detector_id', environment: changed('environment_id') })
  .install();
expectTypeOf(withGenerations({ client: 'pg' as const }, { cache: 'types' }).client).toEqualTypeOf<'pg'>();

// --- refused calls

// The namespaces of an application, as types that a migration imports.
const declared = onChangeOf<typeof detectors | typeof environments | typeof tenants>(db, 'link', { cache: 'types' });
void declared
  .bump({ detector: 'detector_id' })
  .bump({ detector: 'detector_id', environment: 'environment_id' })
  .bump({});
void declared
  .lookUp('other', { id: 'link_id' })
  .bump({ detector: 'detector_id', environment: changed('environment_id') })
  .bump({ tenant: 'tenant' })
  .install();
// @ts-expect-error a misspelt namespace
void declared.bump({ detectr: 'detector_id' });
// @ts-expect-error a namespace without the one above it
void declared.bump({ environment: 'environment_id' });
// @ts-expect-error two namespaces of which neither is below the other
void declared.bump({ detector: 'detector_id', tenant: 'tenant' });
// @ts-expect-error a misspelt namespace in the bump of a lookup
void declared.lookUp('other', { id: 'link_id' }).bump({ detector: 'detector_id', enviroment: 'environment_id' });
// @ts-expect-error a misspelt namespace after another bump
void declared.bump({}).bump({ detectr: 'detector_id' });
// @ts-expect-error a namespace that the type does not have
void onChangeOf<typeof detectors>(db, 'link', { cache: 'types' }).bump({ tenant: 'tenant' });

// @ts-expect-error changed() needs a lookup beside it
void onChangeOf(db, 'link', { cache: 'types' }).bump({ environment: changed('environment_id') });
// @ts-expect-error a lookup without a bump can't be installed
void onChangeOf(db, 'link', { cache: 'types' }).lookUp('other', { id: 'link_id' }).install();
// @ts-expect-error one cache or several, not both
withGenerations({}, { cache: 'types', caches: ['types'] });
// @ts-expect-error a relay has a store
startRelay({ cache: 'types', db });

// @ts-expect-error an id is missing
void names.fetch({ detector: 42 });
// @ts-expect-error an undeclared id
void names.fetch({ detector: 42, environment: 7, project: 9 });
// @ts-expect-error an id of another kind: null in a namespace that is not nullable
void detectors.bump({ detector: null });
// @ts-expect-error a number in a text namespace
void tenants.bump({ tenant: 42 });
// @ts-expect-error the key is missing
void settings.fetch({ tenant: 'a' });
// @ts-expect-error there is no blind set: a fill needs the vector of a lookup
void settings.fill({ tenant: 'a', setting: 'b' }, undefined);
// @ts-expect-error a vector can't be made by hand
const forged: Vector = { scopes: [], generations: [], entryKey: 'x', capturedAtMs: 0 };
void forged;
// @ts-expect-error not a Knex transaction
void detectors.bump({ detector: 42 }, { trx: {} });
// @ts-expect-error every entry declares `by`
tenants.one('nobodys', { load: async () => [] as SettingRow[] });
tenants.one('swapped', {
  load: async () => [] as SettingRow[],
  // @ts-expect-error `by` names every id
  by: (row) => ({ detector: row.name }),
});
// @ts-expect-error a value of another type than the entry's
void settings.fill(undefined as unknown as Vector, { tenant: 1 });
// @ts-expect-error a store is bounded
memoryStore({ maxBytes: undefined as unknown as null });

// --- the local tier

const named = { name: 'types', store: memoryStore() };
void new GenerationalCache({ ...named, local: { mode: 'verify', maxEntries: 10_000 } });
void new GenerationalCache({ ...named, local: { mode: 'verify', maxBytes: 64 << 20 } });
void new GenerationalCache({ ...named, local: { mode: 'verify', maxBytes: 64 << 20, staleOnOutageMs: 60_000 } });
void new GenerationalCache({
  ...named,
  local: { mode: 'track', maxEntries: 100, heartbeatMs: 500, staleOnOutageMs: 1 },
});
// @ts-expect-error a grace of a tier without a mode
void new GenerationalCache({ ...named, local: { maxEntries: 10_000, staleOnOutageMs: 60_000 } });
// @ts-expect-error a local tier without a bound
void new GenerationalCache({ ...named, local: { mode: 'verify' } });
// @ts-expect-error an unknown mode
void new GenerationalCache({ ...named, local: { mode: 'fast', maxEntries: 10_000 } });
