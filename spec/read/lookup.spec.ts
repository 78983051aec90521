/**
 * The cost of reads, in commands. MONITOR records each command, and each has a name here. A process is a cache of its own
 * with a connection of its own; `EVAL` is a script's first use on a connection, and one command as well.
 */
import { expect } from 'chai';
import {
  type CacheSettings,
  GenerationalCache,
  integer,
  memoryStore,
  nullable,
  type Store,
  text,
} from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { bypassStore, observe } from '../../lib/testing/index.js';
import { isBeat, recordCommands } from '../support/commands.js';
import { lend } from '../support/lenders.js';
import { itWithoutTier } from '../support/local-tier/it-without-tier.js';
import { lendRedis, redisUrl, uniqueName } from '../support/redis.js';

/** One process: entries at four depths, whose loader counts its calls. */
function lendProcess(
  name = uniqueName(),
  store: Store = redisStore(lendRedis({ lazyConnect: true })),
  settings: Partial<CacheSettings> = {},
) {
  // Long deadlines, since MONITOR makes a shared server slow.
  const cache = new GenerationalCache({ ...settings, name, store, readDeadlineMs: 30_000, fillDeadlineMs: 30_000 });
  lend({ what: `the cache ${name}`, close: () => cache.close() });
  const connected = new Promise((resolve) => cache.on('storeUp', resolve));
  const loads: number[] = [];
  const rows = {
    load: async (asked: readonly object[]) => {
      loads.push(asked.length);
      return asked.map((ids) => ({ ids: ids as never, value: JSON.stringify(ids) }));
    },
    by: (row: { ids: never }) => row.ids,
    value: (row: { value: string }) => row.value,
  };
  const regions = cache.namespace('region', integer());
  const countries = regions.namespace('country', nullable(integer()));
  const cities = countries.namespace('city', integer());
  const labels = cache.namespace('label', text());
  return {
    ...{ name, cache, connected, loads, regions, countries, cities, labels },
    total: cache.one('total', rows),
    region: regions.one('value', rows),
    regionToo: regions.one('other', rows),
    country: countries.one('value', rows),
    city: cities.one('value', rows),
    label: labels.one('value', rows),
  };
}

const CITY = { region: 1, country: null, city: 3 };

/** The commands of the work and of the fills behind it, by name: MGET, MINT, CLAIM, FILL, BUMP. */
async function commandsOf(process: ReturnType<typeof lendProcess>, work: () => Promise<unknown>): Promise<string[]> {
  return (await argumentsOf(process, work)).map(([command]) => command!);
}

/** The commands of the work and of the fills behind it, with their arguments. */
async function argumentsOf(process: ReturnType<typeof lendProcess>, work: () => Promise<unknown>): Promise<string[][]> {
  const settled = async () => {
    await work();
    await process.cache.settled();
  };
  await process.connected;
  const { commands } = await recordCommands<unknown>(redisUrl(), settled, { from: process.name });
  return commands.filter((command) => !isBeat(command)).map((command) => [scriptName(command), ...command.slice(1)]);
}

/** The name of a script, by the last arguments of its call. */
function scriptName([name, , keys, ...rest]: string[]): string {
  if (name !== 'EVAL' && name !== 'EVALSHA') return name!;
  const [first, , third] = rest.slice(Number(keys));
  if (first!.startsWith('0.')) return 'MINT';
  if (!/^[0-9]+$/.test(first!)) return 'BUMP';
  // The instant from which TTLs count, or the TTL of a lease.
  return Number(third) > 1e12 ? 'FILL' : 'CLAIM';
}

describe('a lookup', () => {
  describe('that hits', () => {
    itWithoutTier('is one command at any depth', async () => {
      const process = lendProcess();
      const { total, region, country, city } = process;
      const reads = [
        () => total.fetch({}),
        () => region.fetch({ region: 1 }),
        () => country.fetch({ region: 1, country: null }),
        () => city.fetch(CITY),
      ];
      for (const [levels, read] of reads.entries()) {
        await read();
        await process.cache.settled();
        const commands = await argumentsOf(process, read);
        expect(commands.map(([command]) => command)).to.deep.equal([
          'MGET', // the generations, and the entry under them
        ]);
        expect(commands[0]).to.have.length(1 + (levels + 1) + 1);
      }
    });

    itWithoutTier('is one command for a batch of 100', async () => {
      const process = lendProcess();
      const ids = Array.from({ length: 100 }, (_, city) => ({ ...CITY, city }));
      await process.city.fetchMany(ids);
      await process.cache.settled();
      const commands = await argumentsOf(process, () => process.city.fetchMany(ids));
      expect(commands.map(([command]) => command)).to.deep.equal([
        'MGET', // global, region, country, 100 cities, 100 entries
      ]);
      expect(commands[0]).to.have.length(1 + 3 + 100 + 100);
      expect(process.loads).to.deep.equal([100]);
    });

    it('is two commands for the first read of a fresh process, and one from then on', async () => {
      const first = lendProcess();
      await first.city.fetch(CITY);
      await first.cache.settled();
      const fresh = lendProcess(first.name);
      expect(await commandsOf(fresh, () => fresh.city.fetch(CITY))).to.deep.equal([
        'MGET', // the generations, which this process does not remember
        'MGET', // the generations again, and the entry under them
      ]);
      expect(await commandsOf(fresh, () => fresh.city.fetch(CITY))).to.deep.equal([
        'MGET', // as remembered
      ]);
      expect(await commandsOf(fresh, () => fresh.city.fetchMany([CITY, { ...CITY, city: 4 }]))).to.deep.equal([
        'MGET', // the first hits; the second city has no generation
        'MINT', // of the second
        'CLAIM', // of its lease
        'FILL', // of the second
      ]);
      expect(fresh.loads).to.deep.equal([1]);
    });

    it('is two commands for the first read after another process filled anew under a bump', async () => {
      const [one, other] = [lendProcess()].flatMap((process) => [process, lendProcess(process.name)]);
      await one!.city.fetch(CITY);
      await one!.cache.settled();
      await other!.city.fetch(CITY);
      await one!.countries.bump({ region: 1, country: null });
      await one!.city.fetch(CITY);
      await one!.cache.settled();
      expect(await commandsOf(other!, () => other!.city.fetch(CITY))).to.deep.equal([
        'MGET', // the country's generation is not as remembered
        'MGET', // the entry under the new one
      ]);
      expect(other!.loads).to.deep.equal([]);
      expect(other!.cache.statistics.total('hits')).to.equal(2);
    });
  });

  describe('that misses', () => {
    it('without generations is four commands and one call of the loader, for any number of entries', async () => {
      const process = lendProcess();
      await process.total.fetch({}); // connected
      const ids = Array.from({ length: 100 }, (_, city) => ({ ...CITY, city }));
      expect(await commandsOf(process, () => process.city.fetchMany(ids))).to.deep.equal([
        'MGET', // only global has a generation
        'MINT', // of region, country and 100 cities
        'CLAIM', // of 100 leases
        'FILL', // of 100 entries, behind the answer
      ]);
      expect(process.loads).to.deep.equal([1, 100]);
    });

    it('after this process’s own bump is three commands', async () => {
      const process = lendProcess();
      await process.city.fetch(CITY);
      await process.cache.settled();
      expect(await commandsOf(process, () => process.regions.bump({ region: 1 }))).to.deep.equal([
        'BUMP', // of one generation, independent of the entries below
      ]);
      expect(await commandsOf(process, () => process.city.fetch(CITY))).to.deep.equal([
        'MGET', // under the generation that the bump gave
        'CLAIM',
        'FILL',
      ]);
    });

    it('after another process’s bump is four commands', async () => {
      const [one, other] = [lendProcess()].flatMap((process) => [process, lendProcess(process.name)]);
      await one!.city.fetch(CITY);
      await one!.cache.settled();
      await other!.city.fetch(CITY);
      await one!.cache.bump();
      expect(await commandsOf(other!, () => other!.city.fetch(CITY))).to.deep.equal([
        'MGET', // the global generation is not as remembered
        'MGET', // no entry under the new one
        'CLAIM',
        'FILL',
      ]);
      expect(other!.loads).to.deep.equal([1]);
    });

    it('without leases is one command less', async () => {
      const process = lendProcess(undefined, undefined, { leases: false });
      await process.city.fetch(CITY);
      await process.cache.settled();
      await process.cache.bump();
      expect(await commandsOf(process, () => process.city.fetch(CITY))).to.deep.equal(['MGET', 'FILL']);
    });

    it('follows a bump that costs one command for each 1,000 scopes', async () => {
      const process = lendProcess();
      const ids = Array.from({ length: 1_001 }, (_, region) => ({ region }));
      await process.regions.bump({ region: 0 });
      expect(await commandsOf(process, () => process.regions.bumpMany(ids.slice(0, 1_000)))).to.deep.equal(['BUMP']);
      expect(await commandsOf(process, () => process.regions.bumpMany(ids))).to.deep.equal(['BUMP', 'BUMP']);
    });

    it('without a fetch costs the commands of a fetch before its load', async () => {
      const process = lendProcess();
      await process.total.fetch({});
      await process.cache.settled();
      expect(await commandsOf(process, () => process.city.lookup(CITY))).to.deep.equal([
        'MGET', // only global has a generation
        'MINT', // of the three
      ]);
      expect(await commandsOf(process, () => process.city.lookup(CITY))).to.deep.equal(['MGET']);
      expect(process.loads).to.deep.equal([1]);
    });
  });

  describe('of many entries', () => {
    itWithoutTier('keeps their order, and reads duplicates once', async () => {
      const process = lendProcess();
      await process.city.fetch(CITY);
      await process.cache.settled();
      const cities = [3, 1, 3, 2, 1, 3];
      const read = () => process.city.fetchMany(cities.map((city) => ({ ...CITY, city })));
      const expected = cities.map((city) => JSON.stringify({ ...CITY, city }));
      const missing = await argumentsOf(process, async () => expect(await read()).to.deep.equal(expected));
      expect(missing.map(([command]) => command)).to.deep.equal(['MGET', 'MINT', 'CLAIM', 'FILL']);
      expect(process.loads).to.deep.equal([1, 2]);
      const [warm] = await argumentsOf(process, async () => expect(await read()).to.deep.equal(expected));
      expect(warm).to.have.length(1 + 3 + 3 + 3); // MGET; global, region, country; three cities; three entries
    });

    it('in one turn is one command, across entries, namespaces and depths', async () => {
      const process = lendProcess();
      const read = async () => {
        const { total, region, regionToo, city, label } = process;
        await Promise.all([
          total.fetch({}),
          region.fetch({ region: 1 }),
          region.fetch({ region: 1 }),
          regionToo.fetchMany([{ region: 1 }, { region: 2 }]),
          Promise.resolve().then(() => city.fetch(CITY)), // a promise job of this turn joins
          label.fetch({ label: 'a' }),
        ]);
      };
      const cold = await commandsOf(process, read);
      expect(cold.slice(0, 2)).to.deep.equal([
        'MGET', // no generation exists
        'MINT', // of all of them
      ]);
      expect(cold.slice(2).toSorted()).to.deep.equal([
        ...Array<string>(5).fill('CLAIM'), // one for each entry name
        ...Array<string>(5).fill('FILL'),
      ]);
      expect(process.loads.toSorted()).to.deep.equal([1, 1, 1, 1, 2]);
      expect(await commandsOf(process, read)).to.deep.equal([
        'MGET', // everything
      ]);
      expect(process.cache.statistics.total('hits')).to.equal(7);
    });

    it('in two turns is two commands', async () => {
      const process = lendProcess();
      await process.region.fetch({ region: 1 });
      await process.cache.settled();
      const twice = async () => {
        const first = process.region.fetch({ region: 1 });
        await new Promise(setImmediate);
        await Promise.all([first, process.region.fetch({ region: 1 })]);
      };
      expect(await commandsOf(process, twice)).to.deep.equal(['MGET', 'MGET']);
    });

    it('shares one call of the loader for each entry name of a turn, if all bypass', async () => {
      const process = lendProcess(uniqueName(), bypassStore());
      const { region, regionToo, loads } = process;
      await Promise.all([
        region.fetch({ region: 1 }),
        region.fetchMany([{ region: 2 }, { region: 1 }]),
        regionToo.fetch({ region: 1 }),
        region.fetch({ region: 3 }),
      ]);
      expect(loads).to.deep.equal([3, 1]);
    });

    const many = (n: number) =>
      Array.from({ length: n }, (_, i) => ({ region: i % 1_000, country: i % 50 ? 7 : null, city: i }));

    itWithoutTier('in 5,000 scopes keeps each command small, and their order', async () => {
      const process = lendProcess();
      const ids = many(5_000);
      const read = async () => {
        const values = await process.city.fetchMany(ids);
        expect(values.every((value, i) => value === JSON.stringify(ids[i]))).to.equal(true);
      };
      const [cold, warm] = [await argumentsOf(process, read), await argumentsOf(process, read)];
      expect(process.loads).to.deep.equal([1_000, 1_000, 1_000, 1_000, 1_000]);
      const count = (name: string) => cold.filter(([command]) => command === name).length;
      expect([count('MGET'), count('MINT')]).to.deep.equal([5, 5]); // of 1,000
      expect([count('CLAIM'), count('FILL')]).to.deep.equal([10, 10]); // of 500
      expect(warm.map(([command]) => command)).to.deep.equal(['MGET', 'MGET', 'MGET', 'MGET', 'MGET']);
      // Global, and for each of 1,000 entries its region, country and city, and itself.
      expect(warm.map((command) => command.length - 1)).to.deep.equal(Array.from({ length: 5 }, () => 4_001));
      const bytes = (command: string[]) => command.reduce((sum, argument) => sum + argument.length + 15, 0);
      expect(Math.max(...[...cold, ...warm].map((command) => command.length))).to.be.at.most(7_100); // a FILL of 500, with their leases
      expect(Math.max(...[...cold, ...warm].map(bytes))).to.be.below(1 << 20);
    });

    itWithoutTier('in 50,000 scopes sends no command with more keys or bytes', async () => {
      const memory = memoryStore({ maxBytes: 1 << 30 });
      const asked: { command: string; keys: number; bytes: number }[] = [];
      const note = (command: string, keys: readonly string[], bytes = 0) => {
        asked.push({ command, keys: keys.length, bytes: keys.reduce((sum, key) => sum + key.length, bytes) });
      };
      const process = lendProcess(uniqueName(), {
        ...memory,
        read: (keys, deadline) => (note('read', keys), memory.read(keys, deadline)),
        mint: (keys, ...rest) => (note('mint', keys), memory.mint(keys, ...rest)),
        fill(batch, deadline) {
          const keys = [...batch.guards, ...batch.entries].map(({ key }) => key);
          const bytes = batch.entries.reduce((sum, entry) => sum + entry.bytes.length, 0);
          note('fill', keys, bytes + batch.guards.length * 32);
          return memory.fill(batch, deadline);
        },
      });
      const ids = many(50_000);
      for (const _ of ['cold', 'warm']) {
        const values = await process.city.fetchMany(ids);
        expect(values.every((value, i) => value === JSON.stringify(ids[i]))).to.equal(true);
        await process.cache.settled();
      }
      expect(process.loads).to.deep.equal(Array.from({ length: 50 }, () => 1_000));
      const most = (command: string) =>
        Math.max(...asked.filter((one) => one.command === command).map(({ keys }) => keys));
      expect([most('read'), most('mint'), most('fill')]).to.deep.equal([4_001, 3_001, 2_001]);
      expect(Math.max(...asked.map(({ bytes }) => bytes))).to.be.below(1 << 20);
    });
  });

  describe('is counted', () => {
    it('as hits, misses with their causes, and avoided queries', async () => {
      const [one, other] = [lendProcess()].flatMap((process) => [process, lendProcess(process.name)]);
      const seen = observe(other!.cache);
      const causes = () =>
        seen.events('read').flatMap(({ missed }) => missed.map(({ cause, bumped }) => [cause, bumped]));
      await other!.city.fetch(CITY); // no generation
      await other!.cache.settled();
      await other!.city.fetch(CITY); // hit
      await one!.regions.bump({ region: 1 });
      await other!.city.fetch(CITY); // bumped
      await other!.cache.settled();
      await other!.city.delete(CITY);
      await other!.city.fetch(CITY); // not filled
      expect(causes()).to.deep.equal([
        ['no_generation', undefined],
        ['bumped', 'region=1'],
        ['not_filled', undefined],
      ]);
      expect(
        ['hits', 'misses', 'queries_avoided', 'queries_run'].map((c) => other!.cache.statistics.total(c as 'hits')),
      ).to.deep.equal([1, 3, 1, 3]);
    });

    it('once per call, even when a later chunk loads after an earlier chunk failed', async () => {
      const cache = new GenerationalCache({ name: uniqueName(), store: bypassStore(), loadBatchMax: 1 });
      const seen = observe(cache);
      const entry = cache.namespace('region', integer()).one('value', {
        load: async (ids) => {
          if (ids[0]!.region === 1) throw new Error('the first chunk fails');
          return ids.map(({ region }) => ({ region }));
        },
        by: (row) => row,
      });
      const failed = await entry.fetchMany([1, 2, 3].map((region) => ({ region }))).catch((error: unknown) => error);
      expect(failed).to.have.property('message', 'the first chunk fails');
      await cache.settled();
      expect(seen.events('read')).to.have.length(1);
      expect(cache.statistics.total('bypasses')).to.equal(3);
    });
  });
});
