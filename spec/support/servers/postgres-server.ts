import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { postgresBinaries } from './binaries.js';
import { makeCluster } from './cluster.js';
import { freePort } from './free-port.js';
import { keepServerFolder, makeServerFolder, removeServerFolder, type Account } from './reaper.js';
import { launch, serverLog, type ServerProcess } from './server-process.js';

export interface PostgresServerOptions {
  /** Survive a crash: leaves fsync, synchronous_commit and full_page_writes on. Off by default, for speed. */
  readonly durable?: boolean;
  /** Further settings, for instance `{ max_connections: '20' }`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** A system of its own: its identifier is not that of the run's other servers. */
  readonly otherSystem?: boolean;
}

/** A private PostgreSQL on 127.0.0.1, whose only role is the superuser `postgres`, without a password. */
export interface PostgresServer {
  readonly url: string;
  readonly port: number;
  /** Of the postmaster that runs now: `restart` changes it. */
  readonly pid: number;
  /** Shuts it down, ending its sessions, and removes its data; with `keep`, prints where they are. */
  stop(options?: { keep?: boolean }): Promise<void>;
  /** Ends the postmaster, by SIGKILL as a crash does: what was not yet written is lost, unless it is durable. */
  kill(signal: 'SIGINT' | 'SIGQUIT' | 'SIGKILL'): Promise<void>;
  /** Ends it in the orderly way if it runs, and starts it on the same port and data. Resolves when it answers a query. */
  restart(): Promise<void>;
}

const HOST = '127.0.0.1';
const PORT_ATTEMPTS = 10;
const RESTART_ATTEMPTS = 30;
const READY_MS = 30_000;
const GRACE_MS = 5_000;

/** Makes a cluster and starts it. Resolves when it answers a query; within 0.4 s, or 1 s where initdb makes it. */
export async function startPostgres(options: PostgresServerOptions = {}): Promise<PostgresServer> {
  const { postgres } = postgresBinaries();
  const account = unprivileged();
  const folder = makeServerFolder('postgres', account);
  try {
    const data = await makeCluster(folder, account, options);
    for (let attempt = 1; ; attempt++) {
      const port = await freePort();
      const url = `postgres://postgres@${HOST}:${port}/postgres`;
      const start = () => launch(folder, postgres, ['-D', data, ...settings(port, folder, options)], account);
      let server = await start();
      if (await answers(server, url, data)) {
        return {
          url,
          port,
          get pid() {
            return server.pid;
          },
          async stop({ keep = false } = {}) {
            await shutDown(server);
            if (keep) keepServerFolder(folder);
            else removeServerFolder(folder);
          },
          async kill(signal) {
            server.signal(signal);
            if (!(await server.endsWithin(GRACE_MS))) {
              throw new Error(`The PostgreSQL of pid ${server.pid} still runs ${GRACE_MS} ms after ${signal}.`);
            }
          },
          async restart() {
            await shutDown(server);
            // Sessions outlive a postmaster that was killed by a moment; until then the shared memory is in use.
            for (let attempt = 1; ; attempt++) {
              server = await start();
              if (await answers(server, url, data)) return;
              if (attempt === RESTART_ATTEMPTS || !serverLog(folder).includes('still in use')) {
                throw new Error(`PostgreSQL does not restart on port ${port}. Its log:\n${serverLog(folder)}`);
              }
              await sleep(100);
            }
          },
        };
      }
      const log = serverLog(folder);
      const taken = log.includes('Address already in use') && attempt < PORT_ATTEMPTS;
      if (!taken) throw new Error(`PostgreSQL does not start on port ${port}. Its log:\n${log}`);
    }
  } catch (error) {
    removeServerFolder(folder);
    throw error;
  }
}

function settings(port: number, folder: string, { durable = false, settings = {} }: PostgresServerOptions): string[] {
  const all: Record<string, string> = {
    listen_addresses: HOST,
    port: String(port),
    unix_socket_directories: folder,
    max_connections: '200',
    ...(durable ? {} : { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }),
    ...settings,
  };
  return Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
}

/** The account PostgreSQL runs as where it would refuse, that is for root: its package's own, else nobody. */
export function unprivileged(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (user: string, flag: string) =>
    Number(execFileSync('id', [flag, user], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
  for (const user of ['postgres', 'nobody']) {
    try {
      return { uid: id(user, '-u'), gid: id(user, '-g') };
    } catch {
      continue; // there is no such user
    }
  }
  throw new Error('PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody.');
}

/** True when this very cluster answers on the port, and not a stranger that got it first; false when it ended. */
async function answers(server: ServerProcess, url: string, data: string): Promise<boolean> {
  const deadline = performance.now() + READY_MS;
  while (server.running && performance.now() < deadline) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
    client.on('error', () => {});
    try {
      await client.connect();
      const { rows } = await client.query<{ data: string }>(`select current_setting('data_directory') as data`);
      if (rows[0]?.data === data) return server.running;
    } catch {
      // not yet, or a stranger that wants a password
    } finally {
      await client.end().catch(() => {});
    }
    await sleep(20);
  }
  await shutDown(server);
  return false;
}

/** Fast, which ends the sessions; then immediate, which also skips the checkpoint; then the hard way. */
async function shutDown(server: ServerProcess): Promise<void> {
  server.signal('SIGCONT');
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    server.signal(signal);
    if (await server.endsWithin(GRACE_MS)) return;
  }
  throw new Error(`The PostgreSQL of pid ${server.pid} still runs ${GRACE_MS} ms after SIGKILL.`);
}
