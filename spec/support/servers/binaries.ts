import { accessSync, constants, readdirSync } from 'node:fs';
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

/** The path of `redis-server`, installed if need be (see `installPackage`). */
export function redisBinary(): string {
  return join(folderOrInstall(REDIS, ['redis-server']), 'redis-server');
}

/** The paths of `postgres` and of its own `initdb`, installed if need be (see `installPackage`). */
export function postgresBinaries(): { postgres: string; initdb: string } {
  const folder = folderOrInstall(POSTGRES, ['postgres', 'initdb']);
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
  return [...path, ...FOLDERS.flatMap(expand)].find((folder) => names.every((name) => canRun(join(folder, name))));
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

function canRun(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
