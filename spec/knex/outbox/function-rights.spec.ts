/**
 * The functions of PostgreSQL in docs/roles-and-schemas.md: the page names each one that gencache's queries for writers and relays
 * call by a name of `pg_`, and without any single one the operation fails as its row says. Those that a relay does without
 * are in `spec/faults/knex/relay/unknown-lineage.spec.ts`.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Knex } from 'knex';
import { CommitUnknownError, installOutbox } from '../../../lib/knex/index.js';
import { RELAY_RIGHTS, WRITER_RIGHTS } from '../../../lib/knex/outbox/missing-rights.js';
import { filesBelow, textOf } from '../../architecture/sources.js';
import { grantRights } from '../../support/roles.js';
import { eventually } from '../../support/deferred.js';
import { lendKnex } from '../../support/knexes.js';
import { allowFunction, LINEAGE_FUNCTIONS } from '../../support/lineage.js';
import { privatePostgres } from '../../support/postgres.js';
import { startProxy } from '../../support/proxy.js';
import { before as beforeQuery } from '../../support/queries.js';
import { uniqueName } from '../../support/redis.js';
import { lendRelay } from '../../support/relay.js';
import { rejection } from '../../support/rejection.js';
import { createItems, openShop, type Shop } from '../../support/shop.js';

const PAGE = readFileSync(join(import.meta.dirname, '../../../docs/roles-and-schemas.md'), 'utf8');
const SECTION = PAGE.slice(PAGE.indexOf('### Functions of PostgreSQL'), PAGE.indexOf('### Row level security'));
const TABLE = [...SECTION.matchAll(/^\| `([^`]+)`/gm)].map(([, name]) => name!);

/** Called by installation, coverage and the doctor alone, or harmless to do without. */
const OTHERS = [
  ...['pg_advisory_xact_lock', 'pg_notify', 'pg_size_pretty', 'pg_total_relation_size', 'pg_is_in_recovery'],
  ...['pg_describe_object', 'pg_table_is_visible', 'pg_typeof'],
];

type Operation = (shop: Shop) => Promise<unknown>;
const commit: Operation = (shop) => shop.set(5);
const bump: Operation = (shop) => shop.db.transaction((trx) => shop.items.bump({ item: 1 }, { trx }));

const WRITERS: Readonly<Record<string, Operation>> = {
  'pg_postmaster_start_time()': commit,
  'pg_current_xact_id()': bump,
  'pg_current_xact_id_if_assigned()': commit,
};
const RELAYS = [
  'pg_postmaster_start_time()',
  'pg_current_snapshot()',
  'pg_visible_in_snapshot(xid8, pg_snapshot)',
] as const;
const STATUS = 'pg_xact_status(xid8)';

describe('a function of PostgreSQL in docs/roles-and-schemas.md', () => {
  let url: string;
  let port: number;
  let db: Knex;
  let own: string;

  before(async () => {
    ({ url, port } = await privatePostgres({ for: 'suite' }));
    own = url.replace('postgres@', 'own@');
    const setUp = lendKnex(url);
    await installOutbox(setUp);
    await createItems(setUp);
    await setUp.raw('create role own login; grant select, update on item to own');
    for (const rights of [RELAY_RIGHTS, WRITER_RIGHTS]) await grantRights(setUp, 'own', rights);
    await setUp.destroy();
  });

  beforeEach(() => {
    db = lendKnex(url);
  });

  async function without(name: string, work: () => Promise<unknown>): Promise<void> {
    await allowFunction(db, name, false);
    try {
      await work();
    } finally {
      await allowFunction(db, name, true);
    }
  }
  const grantOf = (name: string) =>
    `PostgreSQL refused the role own: permission denied for function ${name.slice(0, name.indexOf('('))}. As a superuser, ` +
    `run: grant execute on function pg_catalog.${name} to "own";`;

  it('has a row there, and each row a spec', () => {
    const covered = new Set([...Object.keys(WRITERS), ...RELAYS, STATUS, ...LINEAGE_FUNCTIONS]);
    expect([...TABLE].sort()).to.deep.equal([...covered].sort());
    const called = ['lib', 'migrations/outbox']
      .flatMap((folder) => filesBelow(folder, '.ts'))
      .flatMap((file) => [...textOf(file).matchAll(/\b(pg_[a-z_]+)\(/g)].map(([, name]) => name!));
    const named = [...TABLE.map((name) => name.slice(0, name.indexOf('('))), ...OTHERS];
    expect([...new Set(called)].sort()).to.deep.equal(named.sort());
  });

  for (const [name, operation] of Object.entries(WRITERS)) {
    it(`is needed by writers, which name its GRANT: ${name}`, async () => {
      const shop = openShop(lendKnex(own));
      await without(name, async () => expect((await rejection(operation(shop))).message).to.equal(grantOf(name)));
      await operation(shop);
    });
  }

  for (const name of RELAYS) {
    it(`is needed by relays, which name its GRANT: ${name}`, async () => {
      const relay = lendRelay({ db: lendKnex(own), cache: uniqueName(), pollMs: 20 });
      const failures: string[] = [];
      relay.on('failure', ({ error }) => failures.push(error.message));
      await without(name, () => eventually(() => expect(failures[0]).to.equal(grantOf(name))));
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      await relay.stop();
    });
  }

  for (const isAllowed of [true, false]) {
    it(`tells the outcome of a COMMIT whose reply was lost${isAllowed ? '' : ', and without it the outcome is unknown'}: ${STATUS}`, async () => {
      const proxy = await startProxy(port, { protocol: 'postgres' });
      const proxied = lendKnex(own.replace(`:${port}`, `:${proxy.port}`));
      const shop = openShop(proxied, { limits: { settleMs: 500 } });
      await shop.warm();
      beforeQuery(proxied, 'COMMIT', () => void proxy.dropReplies());
      const allowed = async () => expect((await shop.set(6)).value).to.equal('now 6');
      const refused = async () => expect(await rejection(shop.set(6))).to.be.instanceOf(CommitUnknownError);
      await (isAllowed ? allowed() : without(STATUS, refused));
    });
  }
});
