/**
 * Dependencies between the rooms of lib/ point one way: `workflow-engine` and `cli` to `knex` and `store`, these to the
 * ports, the ports to the model. `docs/architecture.md` shows the same table, with what is in each room.
 */
import { expect } from 'chai';
import { filesBelow, type Import, importsBelow, importsIn, roomOf, textOf } from './sources.js';

const BASE = ['errors', 'async', 'model', 'ports'];

/** The rooms that each room may import. `lib` is the files at its top, which hold what a user holds. */
const EDGES: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  async: ['errors'],
  codec: ['errors'],
  model: ['errors', 'async', 'codec'],
  ports: ['errors', 'async', 'model'],
  telemetry: ['errors', 'async', 'model'],
  read: [...BASE, 'codec', 'telemetry'],
  write: [...BASE, 'telemetry'],
  lib: [...BASE, 'codec', 'telemetry', 'read', 'write'],

  'store/memory': BASE,
  'store/redis': [...BASE, 'store/redis/cluster', 'store/redis/commands', 'store/redis/tracking'],
  'store/redis/cluster': [...BASE, 'store/redis', 'store/redis/commands', 'store/redis/tracking'],
  'store/redis/tracking': [...BASE, 'store/redis'],
  'store/redis/commands': ['store/redis/commands/includes'],
  'store/redis/commands/includes': [],

  'knex/postgres': ['errors', 'async'],
  'knex/outbox': [...BASE, 'write', 'knex/postgres'],
  'knex/relay': [...BASE, 'telemetry', 'write', 'knex/postgres', 'knex/outbox'],
  'knex/triggers': ['errors', 'model', 'knex/postgres', 'knex/outbox', 'knex/triggers/generate'],
  'knex/triggers/generate': ['model', 'knex/postgres', 'knex/outbox', 'knex/triggers'],
  'knex/coverage': ['errors', 'async', 'model', 'knex/postgres', 'knex/outbox', 'knex/triggers'],
  'knex/migrations': ['errors', 'model', 'knex/postgres', 'knex/outbox', 'knex/triggers'],
  'knex/install': ['errors', 'knex/postgres', 'knex/outbox', 'knex/triggers', 'knex/migrations', 'migrations/outbox'],
  knex: [...BASE, 'telemetry', 'write', 'knex/postgres', 'knex/outbox'],

  cli: [...BASE, 'telemetry', 'knex/postgres', 'knex/outbox', 'cli/commands'],
  'cli/commands': [
    ...[...BASE, 'telemetry', 'store/redis', 'knex/postgres', 'knex/outbox', 'knex/relay', 'knex/triggers'],
    ...['knex/install', 'knex/coverage', 'cli', 'cli/doctor'],
  ],
  'cli/doctor': [
    ...[
      ...BASE,
      'store/redis',
      'store/redis/cluster',
      'knex/postgres',
      'knex/outbox',
      'knex/triggers',
      'knex/migrations',
    ],
    ...['knex/install', 'cli'],
  ],
  testing: ['errors', 'ports', 'telemetry'],
  'workflow-engine': ['lib', 'model', 'knex', 'knex/postgres', 'knex/triggers', 'migrations/workflow-engine'],
};

/** What a single file may import beyond that: entry points, which export and do nothing else. */
const EXPORTS: Readonly<Record<string, readonly string[]>> = {
  'lib/index.ts': ['store/memory'],
  'lib/knex/index.ts': ['knex/relay', 'knex/triggers', 'knex/coverage', 'knex/migrations', 'knex/install'],
};

/** The packages, and the rooms that may import them: values, or types alone. Rooms below a room count with it. */
const PACKAGES: Readonly<Record<string, { readonly values: readonly string[]; readonly types: readonly string[] }>> = {
  ioredis: { values: ['store/redis', 'cli'], types: [] },
  knex: { values: ['cli'], types: ['knex', 'workflow-engine'] },
  pg: { values: ['cli'], types: ['knex', 'workflow-engine'] },
  'lru-cache': { values: ['store/memory', 'read'], types: [] },
  '@standard-schema/spec': { values: [], types: ['model', 'codec'] },
};

/** The rooms of the core, which know no store, no source and no command line. */
const CORE = ['errors', 'async', 'model', 'ports', 'codec', 'telemetry', 'read', 'write'];

const IMPORTS = importsBelow('lib');
const isPackage = ({ target }: Import) => !target.endsWith('.ts');
const shown = ({ file, target }: Import) => `${file} imports ${target}`;
const within = (room: string, others: readonly string[]) =>
  others.some((other) => room === other || room.startsWith(`${other}/`));

describe('the rooms of lib/', () => {
  it('are those of the table of edges', () => {
    const rooms = new Set(filesBelow('lib', '.ts').map(roomOf));
    expect([...rooms].toSorted()).to.deep.equal(Object.keys(EDGES).toSorted());
  });

  for (const [room, edges] of Object.entries(EDGES)) {
    it(`${room} imports ${edges.length === 0 ? 'no other room' : `no rooms but ${edges.join(', ')}`}`, () => {
      const strange = IMPORTS.filter((each) => roomOf(each.file) === room && !isPackage(each)).filter(
        ({ file, target }) => {
          const other = roomOf(target);
          return other !== room && !edges.includes(other) && !EXPORTS[file]?.includes(other);
        },
      );
      expect(strange.map(shown)).to.deep.equal([]);
    });
  }

  it('of the core have no edge to a store, a source, the command line or the files at the top', () => {
    for (const room of CORE) {
      const outside = EDGES[room]!.filter((other) => !CORE.includes(other));
      expect(outside, room).to.deep.equal([]);
    }
  });

  it('import no packages but those of the table, and types alone where no value may be loaded', () => {
    const strange = IMPORTS.filter((each) => isPackage(each) && !each.target.startsWith('node:')).filter((each) => {
      const { values, types } = PACKAGES[each.target] ?? { values: [], types: [] };
      const room = roomOf(each.file);
      return !within(room, values) && !(each.typeOnly && within(room, types));
    });
    expect(strange.map(shown)).to.deep.equal([]);
  });

  it('have no cycle of files, types included', () => {
    const targets = new Map<string, string[]>();
    for (const { file, target } of IMPORTS) targets.set(file, [...(targets.get(file) ?? []), target]);
    expect(cyclesOf(targets)).to.deep.equal([]);
  });

  it('are described in docs/architecture.md, with what each may import', () => {
    const rows = [...textOf('docs/architecture.md').matchAll(/^\| `(?<room>[^`]+)` *\|[^|]*\|(?<imports>[^|]*)\|$/gm)];
    const described = rows.map(({ groups }) => {
      const imports = [...groups!.imports!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);
      return [groups!.room!, imports.toSorted()] as const;
    });
    const expected = Object.entries(EDGES).map(([room, edges]) => [room, edges.toSorted()] as const);
    expect(Object.fromEntries(described)).to.deep.equal(Object.fromEntries(expected));
    expect(described.length).to.equal(expected.length);
  });
});

describe('migrations/', () => {
  it('import types of knex and nothing else: what is released never changes', () => {
    const strange = importsBelow('migrations').filter(({ target, typeOnly }) => target !== 'knex' || !typeOnly);
    expect(strange.map(shown)).to.deep.equal([]);
  });
});

describe('the reading of imports', () => {
  it('finds each form of an import, and tells types from values', () => {
    const text = `
import a from './a.js';
import b, { type B } from '../b.js';
import * as c from 'c';
import type { D } from './d.js';
import { type E, type F } from './e.js';
import {
  type G,
  h,
} from './g.js';
import './i.js';
export * from './j.js';
export type * from './k.js';
export { l } from './l.js';
const m = import('m');
type N = import('./n.js').N;
export const text = \`from './o.js'\`;
`;
    const found = importsIn('lib/x/y.ts', text).map(({ target, typeOnly }) => `${target}${typeOnly ? ' (types)' : ''}`);
    expect(found).to.deep.equal([
      ...['lib/x/a.ts', 'lib/b.ts', 'c', 'lib/x/d.ts (types)', 'lib/x/e.ts (types)', 'lib/x/g.ts'],
      ...['lib/x/j.ts', 'lib/x/k.ts (types)', 'lib/x/l.ts', 'lib/x/i.ts', 'm', 'lib/x/n.ts'],
    ]);
  });

  it('misses no line that ends with from and a name', () => {
    const missed = filesBelow('lib', '.ts').flatMap((file) => {
      const found = new Set(IMPORTS.filter((each) => each.file === file).map(({ target }) => target.split('/').at(-1)));
      const lines = [...textOf(file).matchAll(/^(?:.* )?from '(?<from>[^']+)';$/gm)];
      const named = lines.map(({ groups }) => groups!.from!.replace(/\.js$/, '.ts').split('/').at(-1));
      return named.filter((name) => !found.has(name)).map((name) => `${file}: ${name}`);
    });
    expect(missed).to.deep.equal([]);
  });

  it('finds a cycle, however long', () => {
    const targets = new Map([
      ['a', ['b', 'x']],
      ['b', ['c']],
      ['c', ['a']],
      ['x', ['y']],
      ['y', []],
    ]);
    expect(cyclesOf(targets)).to.deep.equal(['a -> b -> c -> a']);
  });
});

/** The shortest cycle through each file that has one, each cycle once. */
function cyclesOf(targets: ReadonlyMap<string, readonly string[]>): string[] {
  const cycles = new Map<string, string>();
  for (const start of targets.keys()) {
    const paths: string[][] = [[start]];
    const met = new Set<string>();
    for (let path = paths.shift(); path !== undefined; path = paths.shift()) {
      const next = targets.get(path.at(-1)!) ?? [];
      if (next.includes(start)) {
        const files = path.toSorted().join();
        if (!cycles.has(files)) cycles.set(files, [...path, start].join(' -> '));
        break;
      }
      for (const file of next) if (!met.has(file) && met.add(file)) paths.push([...path, file]);
    }
  }
  return [...cycles.values()];
}
