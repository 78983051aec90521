/** The servers that the matrix runs on: PostgreSQLs of spec/matrix/package.json, and what this machine offers. */
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { delimiter, dirname, join, relative } from 'node:path';
import { Redis } from 'ioredis';
import pg from 'pg';
import { canRun, postgresBinaries, redisBinary } from '../support/servers/binaries.js';
import { startPostgres } from '../support/servers/postgres-server.js';
import { startRedis } from '../support/servers/redis-server.js';

const PACKAGES = join(import.meta.dirname, 'node_modules');

/** The folders of programs of this machine's PostgreSQL, and of those that `npm ci` has installed for its platform. */
export function postgresFolders(): { readonly machine: string; readonly installed: readonly string[] } {
  const installed = (existsSync(PACKAGES) ? readdirSync(PACKAGES).sort() : []).filter((name) =>
    /^(oldest|newest)-/.test(name),
  );
  if (installed.length === 0) {
    throw new Error(
      `The matrix needs a PostgreSQL of spec/matrix/package.json, but none is there for ${process.platform} on ` +
        `${process.arch}. Start it with npm run test:matrix, which installs them, on a platform of that file.`,
    );
  }
  const folders = installed.toReversed().map((name) => join(PACKAGES, name));
  for (const folder of folders) link(folder);
  return {
    machine: dirname(postgresBinaries().postgres),
    installed: folders.map((folder) => join(folder, 'native/bin')),
  };
}

/** A package can't contain links; its own install script would make them from this list, and npm 11 runs none. */
function link(folder: string): void {
  const list = join(folder, 'native/pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { readonly source: string; readonly target: string }[];
  for (const { source, target } of links) {
    const path = join(folder, target);
    mkdirSync(dirname(path), { recursive: true });
    rmSync(path, { force: true });
    symlinkSync(relative(dirname(target), source), path);
  }
}

/** Each `redis-server` and `valkey-server` of PATH, once, however many names it has; this machine's own comes first. */
export function redisPrograms(): readonly [machine: string, ...others: string[]] {
  const machine = redisBinary();
  const found = new Map([[realpathSync(machine), machine]]);
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    for (const name of ['redis-server', 'valkey-server']) {
      const program = join(folder, name);
      if (folder === '' || !canRun(program)) continue;
      const file = realpathSync(program);
      if (!found.has(file)) found.set(file, program);
    }
  }
  return [machine, ...[...found.values()].slice(1)];
}

/** What the PostgreSQL says of itself that POSTGRES_BIN names: `14.23`. */
export async function postgresVersion(): Promise<string> {
  const server = await startPostgres();
  const client = new pg.Client({ connectionString: server.url });
  try {
    await client.connect();
    const { rows } = await client.query<{ version: string }>(`select current_setting('server_version') as version`);
    return rows[0]!.version.split(' ')[0]!; // packages append their own
  } finally {
    await client.end();
    await server.stop();
  }
}

/** What the server says of itself that REDIS_SERVER names: `Redis 7.0.15`, `Valkey 8.1.1`. */
export async function redisVersion(): Promise<string> {
  const server = await startRedis();
  const client = new Redis(server.url);
  try {
    const info = await client.info('server');
    const version = (name: string) => new RegExp(`^${name}_version:(\\S+)`, 'm').exec(info)?.[1];
    const valkey = version('valkey');
    return valkey === undefined ? `Redis ${version('redis')}` : `Valkey ${valkey}`;
  } finally {
    client.disconnect();
    await server.stop();
  }
}
