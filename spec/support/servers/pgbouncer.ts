import { writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { canRun } from './binaries.js';
import { freePort } from './free-port.js';
import { unprivileged } from './postgres-server.js';
import { makeServerFolder, removeServerFolder } from './reaper.js';
import { launch, serverLog } from './server-process.js';

/** Where Debian's package puts it; a user's PATH lacks that folder. */
const FOLDER = '/usr/sbin';
const READY_MS = 10_000;

/** A PgBouncer in transaction mode: each transaction may get another session of the server. */
export interface PgBouncer {
  readonly url: string;
  stop(): Promise<void>;
}

/** The program; undefined where it is missing. It is not installed here: a spec without it skips itself. */
export function pgbouncerBinary(): string | undefined {
  const path = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return [...path, FOLDER].map((folder) => join(folder, 'pgbouncer')).find(canRun);
}

export interface PgBouncerOptions {
  readonly binary: string;
  /** The server's. */
  readonly port: number;
  /** Sessions of the server, for all clients. */
  readonly poolSize: number;
}

/** Starts one before the server of a port of 127.0.0.1. Resolves when it passes on a query. */
export async function startPgBouncer({ binary, port: target, poolSize }: PgBouncerOptions): Promise<PgBouncer> {
  const account = unprivileged();
  const folder = makeServerFolder('pgbouncer', account);
  const port = await freePort();
  const file = join(folder, 'pgbouncer.ini');
  const settings = {
    ...{ listen_addr: '127.0.0.1', listen_port: port, unix_socket_dir: '', auth_type: 'any' },
    ...{ pool_mode: 'transaction', default_pool_size: poolSize, max_client_conn: 100 },
    ignore_startup_parameters: 'extra_float_digits',
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}`);
  const database = `postgres = host=127.0.0.1 port=${target} dbname=postgres user=postgres`;
  writeFileSync(file, ['[databases]', database, '[pgbouncer]', ...lines, ''].join('\n'), { mode: 0o644 });
  const server = await launch(folder, binary, [file], account);
  const stop = async () => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const) {
      server.signal(signal);
      if (await server.endsWithin(2_000)) break;
    }
    removeServerFolder(folder);
  };
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  const deadline = performance.now() + READY_MS;
  while (server.running && performance.now() < deadline) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
    client.on('error', () => {});
    try {
      await client.connect();
      await client.query('select 1');
      return { url, stop };
    } catch {
      await sleep(20);
    } finally {
      await client.end().catch(() => {});
    }
  }
  const log = serverLog(folder);
  await stop();
  throw new Error(`PgBouncer does not start on port ${port}. Its log:\n${log}`);
}
