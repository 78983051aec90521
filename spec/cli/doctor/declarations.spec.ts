/** The doctor compares triggers and cache names with what applications publish: nothing that readers miss is called sound. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { declarationFindings } from '../../../lib/cli/doctor/declaration-findings.js';
import { integer, text } from '../../../lib/index.js';
import { installMigrationsTrigger, onChangeOf } from '../../../lib/knex/index.js';
import { PublishedCaches } from '../../../lib/knex/outbox/published-caches.js';
import { age, type DeclaredCache, publish } from '../../support/declarations.js';
import { eventually } from '../../support/deferred.js';
import { schemaOf } from '../../support/postgres.js';
import { lendRelay } from '../../support/relay.js';
import { type Env, gencache } from '../gencache.js';
import { createMigrationsTable, describeCommand, lendInstallation } from '../installation.js';

interface Diagnosis {
  readonly step: string;
  readonly ok: boolean;
  readonly findings: { status: string; check: string; message: string; remedy?: string }[];
}

describeCommand('gencache doctor, of what is published,', () => {
  let db: Knex;
  let env: Env;
  let cache: string;

  beforeEach(async () => {
    ({ db, env, cache } = await lendInstallation());
    await db.raw('create table flag (id int primary key, org_id bigint, key uuid)');
    await createMigrationsTable(db);
    await installMigrationsTrigger(db, { cache });
    (db.client as { logger: { warn(message: string): void } }).logger.warn = () => {};
  });

  const flags = (own: DeclaredCache) => own.namespace('org', integer()).namespace('env', text());
  const install = (ids: Record<string, string>, name = cache) =>
    onChangeOf(db, 'flag', { cache: name }).bump(ids).install();

  async function diagnosed(name = cache): Promise<Diagnosis & { code: number | null }> {
    const { code, out } = await gencache(['doctor', '--cache', name, '--json'], env);
    return { ...(JSON.parse(out) as Diagnosis), code };
  }

  async function relaying(): Promise<void> {
    const relay = lendRelay({ db, cache, pollMs: 20 });
    await eventually(() => expect(relay.status.trusted).to.equal(true));
  }

  const found = ({ findings }: Diagnosis, check: string) =>
    findings.filter((finding) => finding.check === check).map(({ status, message }) => `${status}: ${message}`);
  /** The same without a doctor, which waits for relays. */
  const namespaces = async () =>
    declarationFindings(await PublishedCaches.read(db, {}), cache, { hasTriggers: true }).map(
      ({ status, message }) => `${status}: ${message}`,
    );
  const isSound = (diagnosis: Diagnosis) => found(diagnosis, 'triggers').some((line) => line.includes('are sound on'));

  it('calls declared names sound, and shows the tree with its kinds', async () => {
    await install({ org: 'org_id' });
    await publish(db, cache, flags);
    await relaying();
    const diagnosis = await diagnosed();
    expect(found(diagnosis, 'triggers')).to.deep.equal([`ok: the triggers are sound on ${schemaOf(db)}.flag`]);
    expect(found(diagnosis, 'namespaces').join()).to.match(
      new RegExp(`^ok: ${schemaOf(db)} published them \\d+ ms ago: org \\(integer\\), org/env \\(text\\)$`),
    );
    expect(diagnosis).to.include({ step: '3', code: 0 });
  });

  it('warns that nothing is published yet, and keeps the step', async () => {
    await install({ ogr: 'org_id' });
    await relaying();
    const diagnosis = await diagnosed();
    expect(found(diagnosis, 'namespaces')).to.deep.equal([
      'warn: no application has published its namespaces: those that triggers name are unchecked',
    ]);
    expect(diagnosis).to.include({ step: '3', code: 0 });
  });

  for (const [what, ids, said] of [
    ['a misspelt namespace', { ogr: 'org_id' }, 'has no namespace ogr: it declares org, org/env.'],
    ['the wrong order', { env: 'key', org: 'org_id' }, 'has no namespace env/org: it declares org, org/env.'],
    ['a column of another kind', { org: 'key' }, 'flag.key is uuid: no reader has an id that this column can hold.'],
  ] as const) {
    it(`does not call ${what} sound, and names no step above 2`, async () => {
      await install(ids);
      await publish(db, cache, flags);
      await relaying();
      const diagnosis = await diagnosed();
      expect(isSound(diagnosis)).to.equal(false);
      expect(found(diagnosis, 'triggers').join())
        .to.match(/^broken: /)
        .and.include(said);
      expect(diagnosis).to.include({ step: '2', ok: false, code: 1 });
    });
  }

  it('does not call triggers for an unpublished cache sound, and asks which is meant', async () => {
    await install({ org: 'org_id' });
    await publish(db, `${cache}s`, flags);
    await relaying();
    const diagnosis = await diagnosed();
    expect(isSound(diagnosis)).to.equal(false);
    expect(diagnosis.findings.filter(({ status }) => status === 'broken')).to.deep.equal([
      {
        ...{ status: 'broken', check: 'namespaces' },
        message: `No application has ever published a cache of the name "${cache}"; published are: ${cache}s.`,
        remedy: `Did you mean "${cache}s"? Use the \`name\` of the GenerationalCache.`,
      },
    ]);
    expect(diagnosis).to.include({ step: '2', code: 1 });
  });

  it('fails for a cache name that no application has published', async () => {
    await install({ org: 'org_id' });
    await publish(db, cache, flags);
    const { findings, code } = await diagnosed(`${cache}x`);
    const finding = findings.find(({ check }) => check === 'cache')!;
    expect(finding).to.include({ status: 'broken' });
    expect(finding.remedy).to.match(new RegExp(`^Did you mean "${cache}"\\?`));
    expect(code).to.equal(1);
  });

  describe('with two trees side by side', () => {
    const grown = (own: DeclaredCache) => (flags(own), own.namespace('customer', integer()));
    const other = (own: DeclaredCache) => own.namespace('org', text());

    it('says that a rolling deploy has that, and calls the triggers of both sound', async () => {
      await publish(db, cache, flags);
      await age(db, cache, 1);
      await install({ customer: 'org_id' });
      await publish(db, cache, grown);
      await relaying();
      const diagnosis = await diagnosed();
      expect(found(diagnosis, 'namespaces')[1]).to.match(
        /^ok: two trees of namespaces are in use, by \S+ \d+ ms ago and \S+ 60 min ago: the first alone has customer; a rolling deploy has that for a while$/,
      );
      expect(isSound(diagnosis)).to.equal(true);
      expect(diagnosis).to.include({ step: '3', code: 0 });
    });

    it('warns while one namespace has ids of two kinds', async () => {
      await publish(db, cache, flags);
      await publish(db, cache, other);
      expect((await namespaces())[1]).to.match(
        /^warn: .*: ids of org are text and integer; the other alone has org\/env; a rolling deploy has that for a while$/,
      );
    });

    it('finds two applications broken that publish two kinds for hours', async () => {
      await install({ org: 'org_id' });
      await publish(db, cache, flags);
      await publish(db, cache, other);
      await age(db, cache, 4);
      await publish(db, cache, flags);
      await publish(db, cache, other);
      await relaying();
      const diagnosis = await diagnosed();
      expect(found(diagnosis, 'namespaces')[1]).to.match(/^broken: .*: ids of org are text and integer; /);
      expect(diagnosis).to.include({ step: '2', code: 1 });
    });

    it('warns of two applications of which one knows more', async () => {
      await publish(db, cache, flags);
      await publish(db, cache, grown);
      await age(db, cache, 4);
      await publish(db, cache, grown);
      await publish(db, cache, flags);
      expect((await namespaces())[1]).to.match(/^warn: .*: the other alone has customer$/);
    });

    it('forgets the old tree some hours after its last process', async () => {
      await publish(db, cache, other);
      await age(db, cache, 4);
      await publish(db, cache, flags);
      expect(await namespaces()).to.have.length(1);
    });
  });
});
