import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import type { Knex } from 'knex';
import { compiled } from '../../support/compiled.js';
import { lend } from '../../support/lenders.js';
import { databaseUrl, schemaOf } from '../../support/postgres.js';

const ROOT = resolve(import.meta.dirname, '../../..');
const CLI = join(ROOT, 'node_modules/knex/bin/cli.js');

/** For an `import` in a project's file. */
export function libFile(path: string): string {
  return JSON.stringify(pathToFileURL(compiled(join('lib', path))).href);
}

const imports = () => `
  import { withGenerations } from ${libFile('knex/migrations/with-generations.ts')};
  import { narrowBump, waiveBump } from ${libFile('knex/migrations/narrow-bump.ts')};
  import { installMigrationsTrigger, uninstallMigrationsTrigger } from ${libFile('knex/migrations/migrations-trigger.ts')};
  import { installOutbox, uninstallOutbox } from ${libFile('knex/install/install-outbox.ts')};
`;

/** Only up, or up and down, as the text of a function's body; `transaction: false` if wanted. */
export interface MigrationText {
  readonly up: string;
  readonly down?: string;
  readonly transaction?: boolean;
}

export interface ProjectOptions {
  readonly cache: string;
  /** What the knexfile exports, where `base` is a configuration and `cache` the cache's name. */
  readonly knexfile?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface Ran {
  readonly code: number | null;
  readonly output: string;
}

export interface Project {
  readonly folder: string;
  write(migrations: Readonly<Record<string, MigrationText>>): Promise<void>;
  /** Runs the real command line there: `knex('migrate:latest')`. */
  knex(...args: string[]): Promise<Ran>;
}

/** A folder with a knexfile for this database and the migrations written into it; removed after the spec. */
export async function lendProject(db: Knex, { cache, knexfile, env = {} }: ProjectOptions): Promise<Project> {
  const folder = await mkdtemp(join(tmpdir(), 'gencache_project_'));
  lend({ what: folder, close: () => rm(folder, { recursive: true }) });
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
  await mkdir(join(folder, 'migrations'));
  await writeFile(
    join(folder, 'knexfile.js'),
    `${imports()}
     const cache = ${JSON.stringify(cache)};
     const base = { client: 'pg', connection: process.env.DATABASE_URL };
     export default ${knexfile ?? 'withGenerations(base, { cache })'};`,
  );
  return {
    folder,
    async write(migrations) {
      for (const [name, { up, down = '', transaction }] of Object.entries(migrations)) {
        await writeFile(
          join(folder, 'migrations', `${name}.js`),
          `${imports()}
           const cache = ${JSON.stringify(cache)};
           const migration = import.meta.url;
           export const up = async (db) => { ${up} };
           export const down = async (db) => { ${down} };
           ${transaction === undefined ? '' : `export const config = { transaction: ${transaction} };`}`,
        );
      }
    },
    async knex(...args) {
      const child = spawn(process.execPath, [CLI, ...args], {
        cwd: folder,
        env: { ...process.env, ...env, NODE_ENV: 'development', DATABASE_URL: databaseUrl(schemaOf(db)) },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      const output = Promise.all([text(child.stdout), text(child.stderr)]);
      const [code] = (await once(child, 'close')) as [number | null];
      return { code, output: (await output).join('') };
    },
  };
}

/** What waits in the outbox, in the order of its recording: `source operation path [held by]`. */
export async function eventsOf(db: Knex, cache: string): Promise<string[]> {
  const rows = await db('gencache_outbox').where({ cache }).orderBy(['recorded_at', 'seq']);
  return rows.map(({ source, operation, path, held_by }) =>
    [
      source.replace(schemaOf(db), '*'),
      operation,
      path === '' ? 'global' : path,
      ...(held_by ? [`held by ${held_by.replace(schemaOf(db), '*')}`] : []),
    ].join(' '),
  );
}

/** The relay has bumped them all, as it were. */
export async function relayed(db: Knex): Promise<void> {
  await db('gencache_outbox').delete();
}
