/**
 * The services of compose.yml that have several servers: their commands, run by the local redis-server on free ports, and
 * used as a host would use them. Docker itself is not needed.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { delimiter, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Cluster, Redis } from 'ioredis';
import { parse } from 'yaml';
import { GenerationalCache, integer, type PartitionedStore, type Store } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { eventually } from '../support/deferred.js';
import { redisBinary } from '../support/servers/binaries.js';
import { freePort } from '../support/servers/free-port.js';
import { makeServerFolder, removeServerFolder } from '../support/servers/reaper.js';

interface Service {
  readonly profiles?: readonly string[];
  readonly ports: readonly string[];
  readonly command?: readonly string[];
  readonly healthcheck: { readonly test: readonly string[] };
}

const { services } = parse(readFileSync(new URL('../../compose.yml', import.meta.url), 'utf8')) as {
  services: Record<string, Service>;
};
const HEALTHY_MS = 60_000;

describe('compose.yml', () => {
  it('starts one Redis and one PostgreSQL unless a profile asks for more', () => {
    const profiles = Object.entries(services).map(([name, { profiles }]) => [name, profiles?.join() ?? '']);
    expect(Object.fromEntries(profiles)).to.deep.equal({
      ...{ redis: '', postgres: '', 'redis-cluster': 'cluster', 'redis-sentinel': 'sentinel' },
    });
  });

  it('publishes each port on loopback alone, and under its own number', () => {
    const ports = Object.values(services).flatMap((service) => service.ports);
    for (const port of ports) expect(port).to.match(/^127\.0\.0\.1:([\d-]+):\1$/);
  });

  it('has a Redis Cluster of three primaries with a replica each, at addresses that the host reaches', async () => {
    const running = await Running.start('redis-cluster');
    try {
      const ports = [7001, 7002, 7003, 7004, 7005, 7006].map(running.port);
      const client = new Cluster([{ host: '127.0.0.1', port: ports[0]! }]);
      await servesACache(redisStore(client));
      // A primary tells of a replica that follows its writes.
      await eventually(async () => {
        const ranges = (await client.cluster('SLOTS')) as unknown as [number, number, ...[string, number][]][];
        const nodes = ranges.map(([, , ...own]) => own);
        expect(nodes.map((own) => own.length)).to.deep.equal([2, 2, 2]);
        expect(nodes.flat().map(([host, port]) => `${host}:${port}`)).to.have.members(
          ports.map((port) => `127.0.0.1:${port}`),
        );
      });
      client.disconnect();
    } finally {
      await running.end();
    }
  });

  it('has a primary with two replicas and three sentinels, at addresses that the host reaches', async () => {
    const running = await Running.start('redis-sentinel');
    try {
      const sentinel = new Redis(running.port(26_379));
      const others = { replicas: [6_382, 6_383], sentinels: [26_380, 26_381] };
      for (const [what, ports] of Object.entries(others)) {
        await eventually(async () => {
          const found = (await sentinel.call('SENTINEL', what, 'mymaster')) as (string[] | Record<string, string>)[];
          expect(found.map(addressOf)).to.have.members(ports.map((port) => `127.0.0.1:${running.port(port)}`));
        });
      }
      sentinel.disconnect();
      const options = { sentinels: [{ host: '127.0.0.1', port: running.port(26_379) }], name: 'mymaster' };
      await servesACache(redisStore(new Redis({ ...options, lazyConnect: true })));
    } finally {
      await running.end();
    }
  });
});

/** RESP2 tells fields and values in turns. */
function addressOf(reply: readonly string[] | Readonly<Record<string, string>>): string {
  const fields = Array.isArray(reply) ? reply : Object.entries(reply).flat();
  const valueOf = (name: string) => fields[fields.indexOf(name) + 1];
  return `${valueOf('ip')}:${valueOf('port')}`;
}

async function servesACache(store: Store | PartitionedStore): Promise<void> {
  const cache = new GenerationalCache({ name: 'compose', store, readDeadlineMs: 5_000, fillDeadlineMs: 5_000 });
  const items = cache.namespace('item', integer());
  const value = items.one('value', { load: (ids) => Promise.resolve([...ids]), by: ({ item }) => ({ item }) });
  const ids = Array.from({ length: 20 }, (_, item) => ({ item }));
  try {
    await value.fetchMany(ids);
    await cache.settled();
    const looked = await Promise.all(ids.map((id) => value.lookup(id)));
    expect(looked.map(({ outcome }) => outcome)).to.deep.equal(ids.map(() => 'hit'));
    await cache.bump();
    expect((await value.lookup(ids[0]!)).outcome).to.equal('miss');
  } finally {
    await cache.close();
  }
}

/** A port that has another one free 10,000 above it, for the bus of a cluster: outgoing connections take none below it. */
async function anotherPort(taken: ReadonlyMap<string, number>): Promise<number> {
  for (;;) {
    const port = await freePort();
    if (port + 10_000 < 32_768 && ![...taken.values()].includes(port)) return port;
  }
}

/** The servers of a service, on ports of their own. */
class Running {
  readonly #folder: string;
  readonly #shell: ChildProcess;
  readonly #ports: ReadonlyMap<string, number>;

  private constructor(folder: string, shell: ChildProcess, ports: ReadonlyMap<string, number>) {
    this.#folder = folder;
    this.#shell = shell;
    this.#ports = ports;
  }

  /** Resolves when the service's health check succeeds. */
  static async start(name: string): Promise<Running> {
    const { ports: published, command, healthcheck } = services[name]!;
    const ports = new Map<string, number>();
    for (const range of published) {
      const [first, last] = range.split(':')[1]!.split('-').map(Number) as [number, number];
      for (let port = first; port <= last; port++) ports.set(String(port), await anotherPort(ports));
    }
    // Compose reads `$$` as `$`.
    const local = (text: string) =>
      text.replaceAll('$$', '$').replaceAll(/\b\d+\b/g, (number) => String(ports.get(number) ?? number));
    const folder = makeServerFolder('redis');
    const env = { ...process.env, PATH: `${dirname(redisBinary())}${delimiter}${process.env['PATH']}` };
    // Ends with this process, however that ends.
    const ending = 'exec 3<&0; (cat <&3 >/dev/null; kill -KILL 0) & ';
    const [shell, ...args] = command!;
    args[args.length - 1] = ending + local(args.at(-1)!);
    const running = spawn(shell!, args, {
      ...{ cwd: folder, env, detached: true, stdio: ['pipe', 'ignore', 'inherit'] },
    });
    const service = new Running(folder, running, ports);
    const [how, ...check] = healthcheck.test.map(local);
    const [program, ...rest] = how === 'CMD-SHELL' ? ['sh', '-c', ...check] : check;
    const deadline = performance.now() + HEALTHY_MS;
    for (;;) {
      const { status, stdout } = spawnSync(program!, rest, { env, encoding: 'utf8' });
      if (status === 0) return service;
      if (performance.now() > deadline) {
        await service.end();
        throw new Error(`${name} was not healthy within ${HEALTHY_MS} ms: ${stdout}`);
      }
      await sleep(200);
    }
  }

  /** The port of this run for one of the file's. */
  readonly port = (port: number): number => this.#ports.get(String(port))!;

  async end(): Promise<void> {
    const ended = once(this.#shell, 'close');
    this.#shell.stdin!.end();
    await ended;
    removeServerFolder(this.#folder);
  }
}
