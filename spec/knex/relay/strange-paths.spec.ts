/** A relay tells of bumps that reach no reader, by what applications publish. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { integer, memoryStore, text } from '../../../lib/index.js';
import { type DeclaredCache, publish } from '../../support/declarations.js';
import { eventually } from '../../support/deferred.js';
import { lendKnex } from '../../support/knexes.js';
import { databaseUrl, schemaOf } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { lendRole } from '../../support/roles.js';

describe('a relay that bumps a path which no reader can have', () => {
  let db: Knex;
  let cache: string;

  beforeEach(async () => {
    db = await lendOutbox();
    cache = uniqueName();
  });

  const flags = (own: DeclaredCache) => own.namespace('org', integer()).namespace('env', text());
  const record = (...paths: string[]) =>
    db('gencache_outbox').insert(paths.map((path) => ({ cache, path, source: 'flag', operation: 'UPDATE' })));

  function relaying(own = db) {
    const relay = lendRelay({ db: own, cache, pollMs: 20, store: memoryStore() });
    const warnings: string[] = [];
    relay.on('warning', ({ message }) => warnings.push(message));
    return {
      relay,
      warnings,
      relayed: (events: number) => eventually(() => expect(relay.status.events).to.equal(events)),
    };
  }

  it('warns once for a misspelt namespace, and once for ids of another kind', async () => {
    await publish(db, cache, flags);
    const { relay, warnings, relayed } = relaying();
    await record('', 'org=7', 'org=7/env=a', 'org=007');
    await relayed(4);
    await record('ogr=7');
    await eventually(() => expect(warnings).to.have.length(1));
    await record('ogr=8', 'org=acme', 'org=8');
    await eventually(() => expect(warnings).to.have.length(2));
    await record('org=acme', 'ogr=9');
    await relayed(10);
    await relay.stop();
    expect(warnings).to.deep.equal([
      `A bump reaches no reader. The cache ${cache} has no namespace ogr: it declares org, org/env. Did you mean \`org\`? ` +
        'Name declared namespaces, from the root down. If a new release declares it, this ends with its first load.',
      `A bump reaches no reader. No reader of the cache ${cache} can have the scope org=acme: the ids of org are of the kind ` +
        'integer. Write an id of that kind, as keys have it. In a trigger, name the column that has such ids.',
    ]);
  });

  it('warns of a cache that no application has published, and of nothing before a first publication', async () => {
    const { warnings, relayed, relay } = relaying();
    await record('ogr=7');
    await relayed(1);
    await relay.stop();
    expect(warnings).to.deep.equal([]);
    cache = uniqueName(); // The first relay's memory store is the authoritative one of the other name.
    await publish(db, `${cache}s`, flags);
    const second = relaying();
    await record('org=7');
    await eventually(() => expect(second.warnings).to.have.length(1));
    expect(second.warnings[0]).to.include(`published are: ${cache}s. Did you mean "${cache}s"?`);
  });

  it('knows a namespace that a new release has published a moment ago', async () => {
    await publish(db, cache, flags);
    const { relay, warnings, relayed } = relaying();
    await record('org=7');
    await relayed(1);
    await publish(db, cache, (own) => (flags(own), own.namespace('customer', integer())));
    await record('customer=7');
    await relayed(2);
    await relay.stop();
    expect(warnings).to.deep.equal([]);
  });

  it('relays as ever as a role that may not read what is published', async () => {
    await publish(db, cache, flags);
    const role = await lendRole(db);
    await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
    await db.raw(
      `grant select, update, delete on gencache_outbox to ??; grant select, insert, update on gencache_authority to ??;
       grant select, insert on gencache_boot to ??; grant insert on gencache_dead_letter to ??`,
      [role, role, role, role],
    );
    const { relay, warnings, relayed } = relaying(
      lendKnex(databaseUrl(`${schemaOf(db)} -c role=${role}`), schemaOf(db)),
    );
    await record('ogr=7', 'org=8');
    await relayed(2);
    await relay.stop();
    expect(warnings).to.deep.equal([]);
    expect(relay.status).to.include({ failures: 0 });
  });
});
