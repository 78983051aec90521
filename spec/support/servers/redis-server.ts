import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { redisBinary } from './binaries.js';
import { freePort } from './free-port.js';
import { keepServerFolder, makeServerFolder, removeServerFolder } from './reaper.js';
import { launch, serverLog, type ServerProcess } from './server-process.js';

export interface RedisServerOptions {
  /** Further arguments of redis-server, for instance `['--appendonly', 'yes']`; they win over our own. */
  readonly args?: readonly string[];
  /** The text of a file of settings that the server may rewrite, as a Sentinel does. */
  readonly config?: string;
  /** A port that must be had. Without it, a free one. */
  readonly port?: number;
}

/** A private Redis on 127.0.0.1: no other run sees it, so it may be flushed, paused, reconfigured and killed. */
export interface RedisServer {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** Of the process that runs now: `restart` changes it. */
  readonly pid: number;
  /** Ends the process and removes its data; with `keep`, saves the data and prints where they are. */
  stop(options?: { keep?: boolean }): Promise<void>;
  /** Sends a signal; when it is one that ends a process, resolves once it has ended. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** SIGSTOP: connections stay open and the kernel accepts new ones, but nothing answers. */
  pause(): void;
  /** SIGCONT. */
  resume(): void;
  /** Ends the process if it runs and starts it on the same port: empty, unless its arguments persist. */
  restart(): Promise<void>;
}

const HOST = '127.0.0.1';
const PORT_ATTEMPTS = 10;
const READY_MS = 15_000;
const GRACE_MS = 5_000;
const DEADLY: ReadonlySet<NodeJS.Signals> = new Set(['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGABRT', 'SIGSEGV']);

/** Starts a private Redis that persists nothing unless its arguments say so. Resolves when it answers a PING. */
export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  const binary = redisBinary();
  const folder = makeServerFolder('redis');
  try {
    for (let attempt = 1; ; attempt++) {
      const port = options.port ?? (await freePort());
      const args = redisArguments(port, folder, options.args ?? []);
      if (options.config !== undefined) args.unshift(writeConfig(folder, options.config));
      const start = () => launch(folder, binary, args);
      const server = await start();
      if (await answers(server, port)) return new PrivateRedis(port, folder, start, server);
      const log = serverLog(folder);
      const taken = /already in use/i.test(log) && options.port === undefined && attempt < PORT_ATTEMPTS;
      if (!taken) throw new Error(`redis-server does not start on port ${port}. Its log:\n${log}`);
    }
  } catch (error) {
    removeServerFolder(folder);
    throw error;
  }
}

class PrivateRedis implements RedisServer {
  readonly host = HOST;
  readonly url: string;
  readonly port: number;
  readonly #folder: string;
  readonly #start: () => Promise<ServerProcess>;
  #server: ServerProcess;

  constructor(port: number, folder: string, start: () => Promise<ServerProcess>, server: ServerProcess) {
    this.url = `redis://${HOST}:${port}`;
    this.port = port;
    this.#folder = folder;
    this.#start = start;
    this.#server = server;
  }

  get pid(): number {
    return this.#server.pid;
  }

  async stop({ keep = false } = {}): Promise<void> {
    if (keep && this.#server.running) {
      this.resume();
      await exchange(this.port, 'SHUTDOWN SAVE', () => false).catch(() => {});
      await this.#server.endsWithin(GRACE_MS);
    }
    await this.kill('SIGKILL');
    if (keep) keepServerFolder(this.#folder);
    else removeServerFolder(this.#folder);
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#server.signal(signal);
    if (!DEADLY.has(signal) || !this.#server.running) return;
    if (signal !== 'SIGKILL') this.resume(); // a stopped process takes only SIGKILL
    if (!(await this.#server.endsWithin(GRACE_MS))) {
      throw new Error(`The Redis of port ${this.port} (pid ${this.pid}) still runs ${GRACE_MS} ms after ${signal}.`);
    }
  }

  pause(): void {
    this.#server.signal('SIGSTOP');
  }

  resume(): void {
    this.#server.signal('SIGCONT');
  }

  async restart(): Promise<void> {
    await this.kill('SIGTERM');
    this.#server = await this.#start();
    if (!(await answers(this.#server, this.port))) {
      throw new Error(`redis-server does not restart on port ${this.port}. Its log:\n${serverLog(this.#folder)}`);
    }
  }
}

function writeConfig(folder: string, text: string): string {
  const path = join(folder, 'redis.conf');
  writeFileSync(path, text);
  return path;
}

/** Our defaults, each unless the arguments name it. */
function redisArguments(port: number, folder: string, args: readonly string[]): string[] {
  const defaults: [string, string][] = [
    ['--port', String(port)],
    ['--bind', HOST],
    ['--dir', folder],
    ['--save', ''],
    ['--appendonly', 'no'],
    ['--daemonize', 'no'],
  ];
  return [...defaults.filter(([name]) => !args.includes(name)).flat(), ...args];
}

/**
 * True when this very process answers on the port; false when it ended instead. A stranger that got the port first
 * would answer a PING too, hence the pid. A server that wants a password says so only when it is ready.
 */
async function answers(server: ServerProcess, port: number): Promise<boolean> {
  const deadline = performance.now() + READY_MS;
  while (server.running && performance.now() < deadline) {
    const reply = await exchange(port, 'PING\r\nINFO server', (text) => /process_id:\d+\r|^-/m.test(text)).catch(
      () => '',
    );
    if (reply.includes(`process_id:${server.pid}\r`) || reply.startsWith('-NOAUTH')) return server.running;
    await sleep(10);
  }
  server.signal('SIGKILL');
  await server.endsWithin(GRACE_MS);
  return false;
}

/** Sends inline commands on a connection of its own and reads until `done` or the connection's end. */
async function exchange(port: number, commands: string, done: (reply: string) => boolean): Promise<string> {
  const socket = connect(port, HOST);
  socket.setTimeout(1_000, () => socket.destroy());
  let reply = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    reply += chunk;
    if (done(reply)) socket.destroy();
  });
  socket.write(`${commands}\r\n`);
  await once(socket, 'close');
  return reply;
}
