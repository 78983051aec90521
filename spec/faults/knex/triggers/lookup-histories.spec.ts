/** Random triggers with lookups, and random transactions: where no installation and no check objects, no scope is missed. */
import { expect } from 'chai';
import fc from 'fast-check';
import type { Knex } from 'knex';
import { checkTriggers } from '../../../../lib/knex/triggers/check-triggers.js';
import { lookupFaults } from '../../../../lib/knex/triggers/lookup-graph.js';
import { type Change, changed, onChangeOf } from '../../../../lib/knex/triggers/on-change.js';
import { uninstallTriggers } from '../../../../lib/knex/triggers/remove-triggers.js';
import { ROW_OPERATIONS, type TriggerDefinition } from '../../../../lib/knex/triggers/trigger-definition.js';
import { lendOutbox } from '../../../support/relay.js';
import { CACHE as cache, takeScopes } from '../../../knex/triggers/support.js';

/** Three tables that refer to each other, each with two columns that may be ids. */
const TABLES = ['a', 'b', 'c'] as const;
type Table = (typeof TABLES)[number];
const COLUMNS = ['id', 'a_id', 'b_id', 'c_id', 'x', 'y'] as const;

/** A bump: the tables of its lookup, by which columns, and the path by table and column. */
interface Bump {
  readonly from: Table;
  readonly hops: readonly { readonly to: Table; readonly column: string; readonly by: string }[];
  /** 0 the changed row, otherwise the last one that is looked up. */
  readonly path: readonly { readonly last: boolean; readonly column: string }[];
  readonly columns: readonly string[] | undefined;
}

const NAMESPACES = ['one', 'two'];
const table = fc.constantFrom(...TABLES);
const column = fc.constantFrom(...COLUMNS);
const bump: fc.Arbitrary<Bump> = fc.record({
  from: table,
  hops: fc.array(
    fc.record({
      to: table,
      column: fc.constantFrom('id', 'a_id', 'b_id'),
      by: fc.constantFrom('id', 'a_id', 'b_id', 'c_id'),
    }),
    { maxLength: 2 },
  ),
  path: fc.array(fc.record({ last: fc.boolean(), column: fc.constantFrom('x', 'y', 'id') }), { maxLength: 2 }),
  columns: fc.option(fc.subarray([...COLUMNS], { minLength: 1 }), { nil: undefined, freq: 3 }),
});

/** The definition as it is stored, for the graph alone: most random triggers are wrong, and need no database to say so. */
function stored({ from, hops, path, columns }: Bump, i: number): TriggerDefinition {
  const [lookUp = null, ...further] = hops.map(({ to, column: found, by }) => ({
    schema: 's',
    table: to,
    on: [{ column: found, changed: by }],
  }));
  const ids = path.map(({ last, column: name }, n) => ({
    namespace: NAMESPACES[n]!,
    column: name,
    of: last && hops.length > 0 ? ('looked up' as const) : ('changed' as const),
  }));
  return {
    ...{ cache, schema: 's', table: from, name: `n${i}`, operations: ROW_OPERATIONS, columns: columns ?? null },
    ...{ truncate: '', limit: 1_000, subscriber: false, bumps: [{ lookUp, further, ids }] },
  };
}

function areSound(all: readonly Bump[]): boolean {
  const definitions = all.map(stored);
  return definitions.every((each) => lookupFaults(each, definitions, { keys: [], views: [] }).length === 0);
}

/** With at least one lookup, and no fault. */
const bumps = fc
  .array(bump, { minLength: 2, maxLength: 5 })
  .filter((all) => all.some(({ hops }) => hops.length > 0) && areSound(all));

const row = fc.record({
  id: fc.integer({ min: 1, max: 3 }),
  a_id: fc.integer({ min: 1, max: 3 }),
  b_id: fc.integer({ min: 1, max: 3 }),
  c_id: fc.integer({ min: 1, max: 3 }),
  x: fc.integer({ min: 1, max: 3 }),
  y: fc.integer({ min: 1, max: 3 }),
});
const rows = fc.record({
  a: fc.uniqueArray(row, { selector: ({ id }) => id, maxLength: 3 }),
  b: fc.uniqueArray(row, { selector: ({ id }) => id, maxLength: 3 }),
  c: fc.uniqueArray(row, { selector: ({ id }) => id, maxLength: 3 }),
});
const write = fc.oneof(
  fc.record({ kind: fc.constant('delete' as const), table, id: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ kind: fc.constant('insert' as const), table, row }),
  fc.record({
    kind: fc.constant('update' as const),
    table,
    id: fc.integer({ min: 1, max: 3 }),
    column: column.filter((name) => name !== 'id'),
    value: fc.integer({ min: 1, max: 3 }),
  }),
);

describe('lookups that no check objects to', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox();
    for (const name of TABLES) {
      await db.raw(`create table ${name} (id int primary key, a_id int, b_id int, c_id int, x int, y int)`);
    }
  });

  function definition({ from, hops, path, columns }: Bump, i: number): Change {
    const on = onChangeOf(db, from, { cache, name: `n${i}`, ...(columns && { columns }) });
    const [first, ...further] = hops;
    if (first === undefined) {
      return on.bump(Object.fromEntries(path.map((id, n) => [NAMESPACES[n]!, id.column])));
    }
    let lookup = on.lookUp(first.to, { [first.column]: first.by });
    for (const { to, column: found, by } of further) lookup = lookup.thenLookUp(to, { [found]: by });
    return lookup.bump(
      Object.fromEntries(path.map((id, n) => [NAMESPACES[n]!, id.last ? id.column : changed(id.column)])),
    );
  }

  /** Each combination of rows that a lookup finds, as far as it reads them, with its scope. */
  async function combinations({ from, hops, path, columns }: Bump): Promise<Map<string, string>> {
    const last = `t${hops.length}`;
    const joins = hops.map(
      ({ to, column: found, by }, i) => `join ${to} t${i + 1} on t${i + 1}.${found} = t${i}.${by}`,
    );
    const reads = [
      ...(columns ?? COLUMNS).map((name) => `t0.${name}`),
      ...hops.flatMap(({ column: found, by }, i) => [`t${i}.${by}`, `t${i + 1}.${found}`]),
      ...path.map(({ last: isLast, column: name }) => `${isLast ? last : 't0'}.${name}`),
      ...hops.map((_, i) => `t${i + 1}.id`),
    ];
    const scope = path.map(
      ({ last: isLast, column: name }, n) => `'${NAMESPACES[n]!}=' || ${isLast ? last : 't0'}.${name}`,
    );
    const { rows: found } = await db.raw<{ rows: { read: string; scope: string }[] }>(
      `select distinct concat_ws(',', ${reads.join(', ')}) as read, ${scope.join(` || '/' || `) || `''`} as scope
       from ${from} t0 ${joins.join(' ')}`,
    );
    return new Map(found.map((each) => [each.read, each.scope]));
  }

  it('find a scope at or above each one whose rows a transaction adds, changes or deletes', async function () {
    this.timeout(120_000);
    let sound = 0;
    let moved = 0;
    await fc.assert(
      fc.asyncProperty(bumps, rows, fc.array(write, { minLength: 2, maxLength: 6 }), async (all, start, writes) => {
        await uninstallTriggers(db);
        await db.raw('truncate a, b, c');
        // In whatever order an installation admits them.
        let waiting = all.map(definition);
        while (waiting.length > 0) {
          const refused: Change[] = [];
          for (const each of waiting) {
            await each.install().catch((error: Error) => {
              if (error.name !== 'ConfigurationError') throw error;
              refused.push(each);
            });
          }
          expect(refused.length).to.be.lessThan(waiting.length);
          waiting = refused;
        }
        expect(await checkTriggers(db)).to.deep.equal([]);
        const lookups = all.filter(({ hops }) => hops.length > 0);
        sound += 1;
        for (const name of TABLES) if (start[name].length > 0) await db(name).insert(start[name]);
        await takeScopes(db);
        const before = await Promise.all(lookups.map(combinations));
        await db.transaction(async (trx) => {
          for (const each of writes) {
            if (each.kind === 'delete') await trx(each.table).where({ id: each.id }).delete();
            else if (each.kind === 'insert') await trx(each.table).insert(each.row).onConflict('id').ignore();
            else
              await trx(each.table)
                .where({ id: each.id })
                .update({ [each.column]: each.value });
          }
        });
        const after = await Promise.all(lookups.map(combinations));
        const bumped = await takeScopes(db);
        for (const i of lookups.keys()) {
          for (const [one, other] of [
            [before[i]!, after[i]!],
            [after[i]!, before[i]!],
          ] as const) {
            for (const [read, scope] of one) {
              if (other.has(read)) continue;
              moved += 1;
              const covered = bumped.some((path) => path === '' || scope === path || scope.startsWith(`${path}/`));
              expect(covered, `${scope} of ${JSON.stringify(lookups[i])}; bumped: ${bumped.join(' ')}`).to.equal(true);
            }
          }
        }
      }),
      { numRuns: Number(process.env['RUNS'] ?? 60) },
    );
    expect(sound).to.be.greaterThan(20);
    expect(moved).to.be.greaterThan(20);
  });
});
