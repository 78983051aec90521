import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox } from '../../lib/knex/index.js';
import { checkTriggers } from '../../lib/knex/triggers/check-triggers.js';
import { uninstallTriggers } from '../../lib/knex/triggers/remove-triggers.js';
import {
  installActionFilterTriggers,
  installDetectorTriggers,
  installWorkflowTriggers,
} from '../../lib/workflow-engine/index.js';
import { holding, leftovers, takeScopes } from '../knex/triggers/support.js';
import { recordCommands } from '../support/commands.js';
import { redisUrl } from '../support/redis.js';
import { counted, lendWorkflowDatabase, lendWorkflowEngine, names } from './support.js';

/** Sources by their numbers in the database. Source 4 has the id of source 1 and another type. */
const SOURCES = [
  { type: 'metric', sourceId: 'cpu' },
  { type: 'metric', sourceId: 'memory' },
  { type: 'cron', sourceId: 'nightly/backup' },
  { type: 'cron', sourceId: 'cpu' },
];
const UNKNOWN = { type: 'metric', sourceId: 'disk' };
const ALL = [...SOURCES, UNKNOWN];

/** Detectors 1 to 4, 4 disabled. Source 1 has 1, 2 and 4; source 2 has 2; source 3 has 3; source 4 none. */
async function seedSources(db: Knex): Promise<void> {
  await db('detector').insert(
    [1, 2, 3, 4].map((id) => ({ name: `d${id}`, type: 'metric', enabled: id !== 4, config: { threshold: id } })),
  );
  await db('data_source').insert(SOURCES.map(({ type, sourceId }) => ({ type, source_id: sourceId })));
  const links = [
    [1, 2],
    [1, 1],
    [1, 4],
    [2, 2],
    [3, 3],
  ];
  await db('data_source_detector').insert(links.map(([source, detector]) => link(source!, detector!)));
}

const link = (source: number, detector: number) => ({ data_source_id: source, detector_id: detector });

describe('DetectorCache', () => {
  let db: Knex;
  let queries: string[];

  beforeEach(async () => {
    db = await lendWorkflowDatabase();
    await seedSources(db);
    queries = [];
    // Without the publication of the cache, one statement a process.
    db.on('query', ({ sql }: { sql: string }) => void (sql.startsWith('do ') || queries.push(sql)));
  });

  it('returns each source’s enabled detectors by id, and none for an unknown source', async () => {
    const { detectors } = lendWorkflowEngine(db);
    expect(names(await detectors.getDetectorsByDataSources(ALL))).to.deep.equal(['d1 d2', 'd2', 'd3', '', '']);
    const [reversed] = await detectors.getDetectorsByDataSources([SOURCES[1]!, SOURCES[0]!]);
    expect(reversed).to.deep.equal([{ id: 2, name: 'd2', type: 'metric', config: { threshold: 2 } }]);
  });

  it('caches that a source is unknown', async () => {
    const { detectors, cache } = lendWorkflowEngine(db);
    const read = () => counted(cache, () => detectors.getDetectorsByDataSources([UNKNOWN]));
    expect(await read()).to.deep.equal({ read: [[]], missed: 1 });
    expect(await read()).to.deep.equal({ read: [[]], missed: 0 });
    expect(queries).to.have.length(1);
    expect(cache.statistics.total('hits')).to.equal(1);
  });

  it('keeps the types of cached values', async () => {
    const { detectors, cache } = lendWorkflowEngine(db);
    const loaded = await detectors.getDetectorsByDataSources(ALL);
    await cache.settled();
    expect(await detectors.getDetectorsByDataSources(ALL)).to.deep.equal(loaded);
    expect(cache.statistics.total('hits')).to.equal(ALL.length);
  });

  it('reads all sources in one command, and fills all misses with one query', async () => {
    const { name, detectors, cache } = lendWorkflowEngine(db);
    const read = () => detectors.getDetectorsByDataSources(SOURCES);
    await read();
    await cache.settled();
    expect(queries).to.have.length(1);
    const warm = await recordCommands(redisUrl(), read, { from: name });
    // 1 global + 2 types + 4 sources, and 4 entries
    expect(warm.commands.map(([command, ...keys]) => [command, keys.length])).to.deep.equal([['MGET', 11]]);
    expect(queries).to.have.length(1);
  });

  it('reads inside a transaction from that transaction alone', async () => {
    const { detectors, cache } = lendWorkflowEngine(db);
    await detectors.getDetectorsByDataSources([SOURCES[1]!]);
    await cache.settled();
    await db.transaction(async (trx) => {
      await trx('data_source_detector').insert(link(2, 3));
      expect(names(await detectors.getDetectorsByDataSources([SOURCES[1]!], { trx }))).to.deep.equal(['d2 d3']);
    });
    expect(cache.statistics.total('bypasses')).to.equal(1);
  });

  it('bumps by hand these sources, and no other', async () => {
    const { detectors, cache } = lendWorkflowEngine(db);
    await detectors.getDetectorsByDataSources(ALL);
    await cache.settled();
    await db('detector').where('id', 2).update({ enabled: false });
    await detectors.bumpDataSources([SOURCES[0]!, SOURCES[1]!], { cause: 'detector changed' });
    const { read, missed } = await counted(cache, () => detectors.getDetectorsByDataSources(ALL));
    expect(names(read)).to.deep.equal(['d1', '', 'd3', '', '']);
    expect(missed).to.equal(2);
  });

  describe('with its triggers', () => {
    /** What all sources read in another process after a transaction, and how many of the five entries were loaded. */
    async function changed(work: (trx: Knex.Transaction) => PromiseLike<unknown>) {
      const writer = lendWorkflowEngine(db);
      const reader = lendWorkflowEngine(db, writer.name);
      await installOutbox(db);
      await installDetectorTriggers(db, { cache: writer.name });
      const read = async () => names(await reader.detectors.getDetectorsByDataSources(ALL));
      expect((await counted(reader.cache, read)).missed).to.equal(5);
      expect((await writer.cache.transaction(async (trx) => void (await work(trx)))).bump).to.equal('done');
      return counted(reader.cache, read);
    }

    it('pass the check beside those of the other caches, and leave nothing when removed', async () => {
      const { name, cache, detectors } = lendWorkflowEngine(db);
      await installOutbox(db);
      await detectors.getDetectorsByDataSources(ALL);
      await cache.settled(); // published
      for (const install of [installDetectorTriggers, installActionFilterTriggers, installWorkflowTriggers]) {
        await install(db, { cache: name });
        await install(db, { cache: name });
        expect(await checkTriggers(db)).to.deep.equal([]);
      }
      await uninstallTriggers(db);
      expect(await leftovers(db)).to.deep.equal([]);
    });

    it('refresh both sources of a detector that is renamed, and no other', async () => {
      expect(await changed((trx) => trx('detector').where('id', 2).update({ name: 'new' }))).to.deep.equal({
        read: ['d1 new', 'new', 'd3', '', ''],
        missed: 2,
      });
    });

    it('refresh the source of a detector that is enabled', async () => {
      expect(await changed((trx) => trx('detector').where('id', 4).update({ enabled: true }))).to.deep.equal({
        read: ['d1 d2 d4', 'd2', 'd3', '', ''],
        missed: 1,
      });
    });

    it('refresh both sources of a detector that is deleted', async () => {
      expect(await changed((trx) => trx('detector').where('id', 2).delete())).to.deep.equal({
        read: ['d1', '', 'd3', '', ''],
        missed: 2,
      });
    });

    it('refresh a source whose links are replaced as a whole', async () => {
      const replaced = await changed(async (trx) => {
        await trx('data_source_detector').where('data_source_id', 1).delete();
        await trx('data_source_detector').insert(link(1, 3));
      });
      expect(replaced).to.deep.equal({ read: ['d3', 'd2', 'd3', '', ''], missed: 1 });
    });

    it('refresh the old and the new source of a link that moves', async () => {
      const moved = await changed((trx) => trx('data_source_detector').where(link(1, 1)).update({ data_source_id: 3 }));
      expect(moved).to.deep.equal({ read: ['d2', 'd2', 'd1 d3', '', ''], missed: 2 });
    });

    it('refresh an unknown source that is created with its first detector', async () => {
      const created = await changed(async (trx) => {
        const [{ id }] = (await trx('data_source')
          .insert({ type: UNKNOWN.type, source_id: UNKNOWN.sourceId })
          .returning('id')) as [{ id: number }];
        await trx('data_source_detector').insert(link(id, 1));
      });
      expect(created).to.deep.equal({ read: ['d1 d2', 'd2', 'd3', '', 'd1'], missed: 1 });
    });

    it('refresh the old and the new name of a source', async () => {
      const renamed = await changed((trx) => trx('data_source').where('id', 2).update({ source_id: UNKNOWN.sourceId }));
      expect(renamed).to.deep.equal({ read: ['d1 d2', '', 'd3', '', 'd2'], missed: 2 });
    });

    it('refresh a source that is deleted together with its detectors, which leaves nothing to look up', async () => {
      const deleted = await changed(async (trx) => {
        await trx('detector').where('id', 3).delete();
        await trx('data_source').where('id', 3).delete();
      });
      expect(deleted).to.deep.equal({ read: ['d1 d2', 'd2', '', '', ''], missed: 1 });
    });

    it('leave every source warm where a detector of none is created and changed, and a link stays what it was', async () => {
      const { missed } = await changed(async (trx) => {
        await trx('data_source_detector').where('detector_id', 3).update({ detector_id: 3 });
        await trx('detector').insert({ name: 'd5', type: 'cron' });
        await trx('detector').where('name', 'd5').update({ enabled: false });
      });
      expect(missed).to.equal(0);
    });

    it('miss no source where one transaction renames a detector while another one links it', async () => {
      await installOutbox(db);
      await installDetectorTriggers(db, { cache: 'workflow_engine' });
      const commitName = await holding(db, (trx) => trx('detector').where('id', 3).update({ name: 'new' }));
      const commitLink = await holding(db, (trx) => trx('data_source_detector').insert(link(4, 3)));
      await commitName();
      // Resolved between the commits: the link is not seen, and bumps for itself.
      expect(await takeScopes(db)).to.deep.equal(['source_type=cron/source=nightly%2Fbackup']);
      await commitLink();
      expect(await takeScopes(db)).to.deep.equal(['source_type=cron/source=cpu']);
    });

    it('refresh everything after TRUNCATE', async () => {
      expect(await changed((trx) => trx.raw('truncate data_source_detector'))).to.deep.equal({
        read: ['', '', '', '', ''],
        missed: 5,
      });
    });
  });
});
