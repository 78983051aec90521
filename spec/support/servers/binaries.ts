import { accessSync, constants, readdirSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { installPackage, type ServerPackage } from './install-package.js';

const REDIS: ServerPackage = { missing: 'redis-server', apt: 'redis-server', dnf: 'redis', brew: 'redis' };
const POSTGRES: ServerPackage = {
  missing: 'a PostgreSQL server (postgres and initdb)',
  apt: 'postgresql',
  dnf: 'postgresql-server',
  brew: 'postgresql',
};

/** Where packages put servers that PATH may lack. A `*` stands for a version; the newest comes first. */
const FOLDERS = [
  '/usr/lib/postgresql/*/bin', // Debian, Ubuntu
  '/usr/pgsql-*/bin', // PostgreSQL's own RPMs
  '/opt/homebrew/bin',
  '/opt/homebrew/opt/postgresql@*/bin',
  '/usr/local/bin',
  '/usr/local/opt/postgresql@*/bin',
  '/home/linuxbrew/.linuxbrew/bin',
  '/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin',
  '/usr/bin',
];

/** In the environment: the path of a `redis-server` or `valkey-server`, in place of the one that PATH offers. */
export const REDIS_SERVER = 'REDIS_SERVER';

/** In the environment: the folder of `postgres` and `initdb`, in place of those that PATH and packages offer. */
export const POSTGRES_BIN = 'POSTGRES_BIN';

/** The path of `redis-server`, or of the program that `REDIS_SERVER` names; installed if need be (see `installPackage`). */
export function redisBinary(): string {
  const named = process.env[REDIS_SERVER];
  if (named) {
    if (canRun(named)) return named;
    throw new Error(
      `${REDIS_SERVER} must be the path of a redis-server or valkey-server, but nothing executable is at ${named}. ` +
        `Correct it, or unset it for the one of PATH.`,
    );
  }
  return join(folderOrInstall(REDIS, ['redis-server']), 'redis-server');
}

/** Whether there is a `redis-server` as it is, without an installation. */
export function hasRedis(): boolean {
  return Boolean(process.env[REDIS_SERVER]) || folderWith(['redis-server']) !== undefined;
}

/** The paths of `postgres` and of its own `initdb`, in `POSTGRES_BIN` if it is set; installed if need be. */
export function postgresBinaries(): { postgres: string; initdb: string } {
  const names = ['postgres', 'initdb'];
  const named = process.env[POSTGRES_BIN];
  if (named && !hasAll(named, names)) {
    throw new Error(
      `${POSTGRES_BIN} must be a folder with the programs postgres and initdb, but ${named} lacks one of them. ` +
        `Correct it, or unset it for those of PATH.`,
    );
  }
  const folder = named || folderOrInstall(POSTGRES, names);
  return { postgres: join(folder, 'postgres'), initdb: join(folder, 'initdb') };
}

function folderOrInstall(wanted: ServerPackage, names: string[]): string {
  const found = folderWith(names);
  if (found !== undefined) return found;
  installPackage(wanted);
  const installed = folderWith(names);
  if (installed === undefined) {
    throw new Error(`The package of ${wanted.missing} is installed, yet ${names.join(' and ')} can't be found.`);
  }
  return installed;
}

/** The first folder that has all the programs: those of one release must not be mixed. */
function folderWith(names: string[]): string | undefined {
  const path = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return [...path, ...FOLDERS.flatMap(expand)].find((folder) => hasAll(folder, names));
}

function hasAll(folder: string, names: string[]): boolean {
  return names.every((name) => canRun(join(folder, name)));
}

/** A pattern's folders, by descending version. */
function expand(pattern: string): string[] {
  const star = pattern.indexOf('*');
  if (star === -1) return [pattern];
  const parent = pattern.slice(0, pattern.lastIndexOf('/', star));
  const prefix = pattern.slice(parent.length + 1, star);
  const rest = pattern.slice(star + 1);
  return namesIn(parent)
    .filter((name) => name.startsWith(prefix))
    .sort((a, b) => parseFloat(b.slice(prefix.length)) - parseFloat(a.slice(prefix.length)))
    .map((name) => join(parent, name) + rest);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Whether it is a program that this process may start. */
export function canRun(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
