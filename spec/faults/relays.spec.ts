/** Several relays at once, and one of an older release. */
import { expect } from 'chai';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { GenerationalCache, integer } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { lend } from '../support/lenders.js';
import { lendRedis } from '../support/redis.js';
import { lendServers, Scene, type Servers } from './scene.js';
import { RELAY } from './steps.js';

describe('relays', () => {
  let servers: Servers;
  let scene: Scene;

  before(async () => {
    servers = await lendServers();
  });

  beforeEach(async () => {
    scene = await Scene.open(servers, { items: 5 });
    scene.reader();
    scene.reader({ bounded: false });
  });

  it('two race, and one of them is killed before its COMMIT: the other bumps every event', async () => {
    const programs = [await scene.program(), await scene.program()];
    const [first, second] = programs.map((program) => scene.runRelay(program));
    await scene.settled(first!);
    await scene.relayed(second!);
    const writers = scene.items.map(async (item) => {
      for (let i = 0; i < 20; i++) await scene.change(item);
    });
    const stop = programs[0]!.stopAt(RELAY.COMMIT);
    await scene.change(1);
    await stop.reached;
    await programs[0]!.kill();
    await Promise.all(writers);
    await scene.verify(second!);
  });

  it('one starts while another has bumped an event and not yet deleted it', async () => {
    const program = await scene.program();
    const relay = scene.runRelay(program);
    await scene.settled(relay);
    const stop = program.stopAt(RELAY['the authority check']);
    await scene.change(1);
    await stop.reached;
    const other = scene.relay();
    await scene.change(2);
    await eventually(() => expect(other.polls.length).to.be.above(3));
    stop.release();
    await scene.verify(relay);
    await scene.verify(other);
  });

  it('an old one bumps a scope of a newer release, and global for a path that it can not parse', async () => {
    const relay = scene.relay();
    await scene.settled(relay);
    const newer = new GenerationalCache({
      name: scene.cache,
      store: redisStore(lendRedis({ url: servers.redis.url })),
      readDeadlineMs: READ_DEADLINE_MS,
    });
    lend({ what: 'a newer release', close: () => newer.close() });
    let tasks = ['swim'];
    const list = newer.namespace('project', integer()).list('tasks', {
      load: async (ids) => ids.flatMap(({ project }) => tasks.map((task) => ({ project, task }))),
      by: ({ project }) => ({ project }),
      value: ({ task }) => task,
    });
    const outcome = async () => (await list.lookup({ project: 9 })).outcome;
    // The second is a form of paths that this release does not know.
    for (const path of ['project=9', 'project:9']) {
      await list.fetch({ project: 9 });
      await newer.settled();
      expect(await outcome()).to.equal('hit');
      tasks = [path];
      await scene.record(scene.db, [path]);
      await scene.relayed(relay);
      expect(await outcome()).to.equal('miss');
      expect(await list.fetch({ project: 9 })).to.deep.equal([path]);
    }
    const deadLetters = await scene.db('gencache_dead_letter').select('path', 'bumped');
    expect(deadLetters).to.deep.equal([{ path: 'project:9', bumped: '' }]);
    await scene.verify(relay);
  });
});
