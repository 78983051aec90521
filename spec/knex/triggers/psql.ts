import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import type { Knex } from 'knex';
import { schemaOf } from '../../support/postgres.js';

/** Debian's packages keep it out of PATH where only the server's is installed. */
const VERSIONS = '/usr/lib/postgresql';

/** What psql prints for a script, on a lent database's schema. Rejects with its first error. */
export async function psql(db: Knex, script: string): Promise<string> {
  const run = promisify(execFile)(program(), ['-X', '-q', '-v', 'ON_ERROR_STOP=1', process.env['DATABASE_URL']!], {
    env: { ...process.env, PGOPTIONS: `-c search_path=${schemaOf(db)}`, PGAPPNAME: schemaOf(db) },
  });
  run.child.stdin!.end(script);
  return (await run).stdout;
}

function program(): string {
  const versions = existsSync(VERSIONS) ? readdirSync(VERSIONS).map((version) => join(VERSIONS, version, 'bin')) : [];
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), ...versions];
  const found = folders.map((folder) => join(folder, 'psql')).find((path) => existsSync(path));
  if (found === undefined) throw new Error('psql is not installed: it comes with the package postgresql-client.');
  return found;
}
