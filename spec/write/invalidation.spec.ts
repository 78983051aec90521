/**
 * Which entries a bump invalidates, exhaustively: a full tree of three levels below global with two children each,
 * an entry at each of its 15 nodes and, at each of the 8 leaves, one more that depends on a scope of a second tree.
 * Every scope is bumped, and every pair; the specs assert exactly the entries that miss, and the commands.
 *
 * Two caches stand for two processes: `writer` bumps, and `reader` reads next without notice of the bump.
 */
import { expect } from 'chai';
import { GenerationalCache, integer, type Store, text } from '../../lib/index.js';
import { recordCommands } from '../support/commands.js';
import { lend } from '../support/lenders.js';
import { lendRedis, redisUrl, uniqueName } from '../support/redis.js';
import { describeOnEachStore } from '../support/stores.js';

type Ids = Readonly<Record<string, number | string>>;

/** A scope, modelled by the names of its ancestors and itself, root first. */
interface Node {
  readonly name: string;
  readonly level: 'global' | 'region' | 'country' | 'city' | 'team' | 'project';
  readonly ids: Ids;
  readonly lineage: readonly string[];
}

const ROOT: Node = { name: 'global', level: 'global', ids: {}, lineage: ['global'] };

function children(parents: readonly Node[], level: Node['level'], values: readonly (number | string)[]): Node[] {
  return parents.flatMap((parent) =>
    values.map((value) => {
      const name = `${parent === ROOT ? '' : `${parent.name}/`}${level}=${value}`;
      return { name, level, ids: { ...parent.ids, [level]: value }, lineage: [...parent.lineage, name] };
    }),
  );
}

const REGIONS = children([ROOT], 'region', [1, 2]);
const COUNTRIES = children(REGIONS, 'country', [1, 2]);
const CITIES = children(COUNTRIES, 'city', [1, 2]);
const TEAMS = children([ROOT], 'team', ['x', 'y']);
const PROJECTS = children(TEAMS, 'project', ['a', 'b']);
const TREE = [ROOT, ...REGIONS, ...COUNTRIES, ...CITIES];
const SCOPES = [...TREE, ...TEAMS, ...PROJECTS];

/** The project that a city's further entry depends on: every project guards two cities, one in each region. */
function projectOf(ids: Ids): Node {
  return PROJECTS[(Number(ids['country']) - 1) * 2 + Number(ids['city']) - 1]!;
}

interface Entry {
  readonly name: string;
  readonly level: Node['level'];
  readonly kind: 'page' | 'tagged';
  readonly ids: Ids;
  /** The names of all scopes whose bump must invalidate it, and of no others. */
  readonly guards: readonly string[];
}

const ENTRIES: readonly Entry[] = [
  ...TREE.map(({ name, level, ids, lineage }) => ({
    name: `page of ${name}`,
    level,
    kind: 'page' as const,
    ids,
    guards: lineage,
  })),
  ...CITIES.map(({ name, level, ids, lineage }) => ({
    name: `tagged of ${name}`,
    level,
    kind: 'tagged' as const,
    ids,
    guards: [...lineage, ...projectOf(ids).lineage],
  })),
];

/** One process: its cache, a read of every entry in one turn, and the ids that its loaders got. */
class Process {
  readonly cache: GenerationalCache;
  /** Names of entries, in the order they were loaded. */
  loaded: string[] = [];
  readonly #fetch = new Map<string, (ids: Ids) => Promise<string | undefined>>();
  readonly #bump = new Map<string, (scopes: Ids[]) => Promise<void>>();

  constructor(name: string, store: Store, source: { version: number }) {
    this.cache = new GenerationalCache({ name, store, readDeadlineMs: 5_000, bumpDeadlineMs: 5_000 });
    lend({ what: `the cache ${name}`, close: () => this.cache.close() });
    const options = (kind: Entry['kind'], level: string) => ({
      load: async (asked: readonly object[]) => {
        const rows = asked.map((ids) => ({ ids: ids as never, version: source.version }));
        this.loaded.push(...rows.map(({ ids }) => `${kind} of ${nameOf(ids)}`));
        return rows;
      },
      by: (row: { ids: never }) => row.ids,
      value: (row: { version: number }) => `${kind} ${level} ${row.version}`,
    });
    const regions = this.cache.namespace('region', integer());
    const countries = regions.namespace('country', integer());
    const cities = countries.namespace('city', integer());
    const teams = this.cache.namespace('team', text());
    const projects = teams.namespace('project', text());
    const namespaces = { region: regions, country: countries, city: cities, team: teams, project: projects };
    const page = this.cache.one('page', options('page', 'global'));
    this.#fetch.set('page global', (ids) => page.fetch(ids as never));
    this.#bump.set('global', () => this.cache.bump());
    for (const [level, namespace] of Object.entries(namespaces)) {
      this.#bump.set(level, (scopes) => namespace.bumpMany(scopes as never));
      if (level === 'team' || level === 'project') continue;
      const entry = (namespace as typeof regions).one('page', options('page', level) as never);
      this.#fetch.set(`page ${level}`, (ids) => entry.fetch(ids as never) as never);
    }
    const tagged = cities.one('tagged', {
      ...options('tagged', 'city'),
      dependsOn: (ids: Ids) => [projects.scope(projectOf(ids).ids as never)],
    } as never);
    this.#fetch.set('tagged city', (ids) => tagged.fetch(ids as never) as never);
  }

  /** Reads every entry in one turn, by name; `loaded` then names the loaded entries, which are stored. */
  async read(): Promise<Map<string, string | undefined>> {
    this.loaded = [];
    const values = await Promise.all(ENTRIES.map(({ kind, level, ids }) => this.#fetch.get(`${kind} ${level}`)!(ids)));
    await this.cache.settled();
    return new Map(ENTRIES.map(({ name }, i) => [name, values[i]]));
  }

  /** Bumps the scopes, those of one namespace together. */
  async bump(...scopes: Node[]): Promise<void> {
    for (const level of new Set(scopes.map((scope) => scope.level))) {
      await this.#bump.get(level)!(scopes.filter((scope) => scope.level === level).map(({ ids }) => ids));
    }
  }
}

function nameOf(ids: Ids): string {
  const names = Object.entries(ids).map(([level, id]) => `${level}=${id}`);
  return names.join('/') || 'global';
}

describeOnEachStore('a bump', ({ place, sendsCommands }) => {
  /** The names of the commands that the work sends, empty for a store without commands. EVAL is a script's first use. */
  async function commandsOf(name: string, work: () => Promise<void>): Promise<string[]> {
    if (!sendsCommands) return work().then(() => []);
    const { commands } = await recordCommands(redisUrl(), work, { from: name });
    return commands.map(([command]) => (command === 'EVAL' ? 'EVALSHA' : command!));
  }

  /**
   * For each of the bumps, one after another, all entries being warm: bumps, and reads again in a process that did
   * not bump, then in the one that did.
   */
  async function check(...cases: readonly (readonly Node[])[]): Promise<void> {
    const name = uniqueName();
    const source = { version: 1 };
    const { open } = place();
    const [writer, reader] = [new Process(name, open(), source), new Process(name, open(), source)];
    await writer.read();
    await reader.read();
    expect(reader.loaded, 'once warm').to.deep.equal([]);
    const values = new Map(ENTRIES.map(({ name: entry, kind, level }) => [entry, `${kind} ${level} 1`]));
    const expectedCommands: string[] = [];

    const commands = await commandsOf(name, async () => {
      for (const bumped of cases) {
        const what = `after a bump of ${bumped.map((scope) => scope.name).join(' and ')}`;
        const names = new Set(bumped.map((scope) => scope.name));
        const expected = ENTRIES.filter(({ guards }) => guards.some((guard) => names.has(guard)));
        source.version++;
        for (const { name: entry, kind, level } of expected) values.set(entry, `${kind} ${level} ${source.version}`);
        const misses = reader.cache.statistics.total('misses');
        const hits = reader.cache.statistics.total('hits');

        await writer.bump(...bumped);
        expect(await reader.read(), what).to.deep.equal(values);
        expect(reader.loaded.toSorted(), what).to.deep.equal(expected.map((entry) => entry.name).toSorted());
        expect(reader.cache.statistics.total('misses') - misses, what).to.equal(expected.length);
        expect(reader.cache.statistics.total('hits') - hits, what).to.equal(ENTRIES.length - expected.length);
        expect(await writer.read(), what).to.deep.equal(values);
        expect(writer.loaded, what).to.deep.equal([]);

        const fills = new Set(expected.map(({ kind, level }) => `${kind} ${level}`)).size;
        expectedCommands.push(
          ...[...new Set(bumped.map(({ level }) => level))].map(() => 'EVALSHA'), // a bump for each namespace
          'MGET', // the reader: a generation is not as remembered
          'MGET', // the reader once more, under the generations just seen
          ...Array.from({ length: 2 * fills }, () => 'EVALSHA'), // a claim and a fill for each entry name with misses
          'MGET', // the writer: it remembers its bump, and every entry hits
        );
      }
    });
    expect(commands).to.deep.equal(sendsCommands ? expectedCommands : []);
  }

  for (const scope of SCOPES) {
    const below = ENTRIES.filter(({ guards }) => guards.includes(scope.name)).length;
    it(`of ${scope.name} invalidates ${below} of ${ENTRIES.length} entries`, () => check([scope]));
  }

  for (const [i, first] of SCOPES.slice(0, -1).entries()) {
    const pairs = SCOPES.slice(i + 1).map((second) => [first, second]);
    it(`of ${first.name} and each of ${pairs.length} further scopes invalidates the entries of both`, () =>
      check(...pairs));
  }

  it('of an unused scope invalidates and writes nothing', async () => {
    const name = uniqueName();
    const process = new Process(name, place().open(), { version: 1 });
    await process.read();
    const unused: Node = { name: 'region=3', level: 'region', ids: { region: 3 }, lineage: [] };
    const commands = await commandsOf(name, () => process.bump(unused));
    if (sendsCommands) {
      expect(commands).to.deep.equal(['EVALSHA']); // the bump
      expect(await lendRedis().exists(`gencache:{${name}:0}:g:region=3`)).to.equal(0);
    }
    await process.read();
    expect(process.loaded).to.deep.equal([]);
  });
});
