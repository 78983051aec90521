import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import pg from 'pg';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { lendRedis, privateRedis } from '../support/redis.js';
import { startPostgres } from '../support/servers/postgres-server.js';
import { runProgram } from './programs/run.js';

const WITH_SERVERS = 'spec/support/servers/with-servers.ts';

describe('a private Redis', () => {
  it('is empty on the same port after a restart, in another process', async () => {
    const server = await privateRedis();
    const client = lendRedis({ url: server.url });
    await client.set('k', 'v');
    const { pid, url } = server;
    await server.restart();
    expect(server.url).to.equal(url);
    expect(server.pid).to.not.equal(pid);
    expect(await client.get('k')).to.equal(null);
  });

  it('keeps what its arguments persist, also after a SIGKILL', async () => {
    const server = await privateRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
    const client = lendRedis({ url: server.url });
    await client.set('k', 'v');
    await server.kill('SIGKILL');
    await server.restart();
    expect(await client.get('k')).to.equal('v');
  });

  it('answers nothing while paused', async () => {
    const server = await privateRedis();
    const client = lendRedis({ url: server.url });
    await client.ping();
    server.pause();
    let answered = false;
    const pong = client.ping().finally(() => (answered = true));
    await eventually(() => expect(stateOf(server.pid)).to.match(/^T/));
    expect(answered).to.equal(false);
    server.resume();
    expect(await pong).to.equal('PONG');
  });

  it('is refused a port that is taken', async () => {
    const { port } = await privateRedis();
    const error = await privateRedis({ port }).catch((reason: unknown) => reason);
    expect(error).to.be.an('error');
    expect((error as Error).message).to.match(
      new RegExp(`^redis-server does not start on port ${port}\\. Its log:\n[^]*already in use`, 'i'),
    );
  });
});

describe('a private PostgreSQL', () => {
  it('may lose commits in a crash, unless it is durable', async () => {
    expect(await durabilityOf(false)).to.deep.equal(['off', 'off', 'off']);
    expect(await durabilityOf(true)).to.deep.equal(['on', 'on', 'on']);
  });
});

describe('with-servers', () => {
  const none = { REDIS_URL: '', DATABASE_URL: '' };

  it('gives two runs side by side servers of their own', async () => {
    const both = ['--', 'sh', '-c', 'echo "$REDIS_URL"; echo "$DATABASE_URL"'];
    const runs = [runProgram(WITH_SERVERS, both, none), runProgram(WITH_SERVERS, both, none)];
    const urls = (await Promise.all(runs.map(async (run) => [await run.line(), await run.line()]))).flat();
    expect(new Set(urls.map((url) => new URL(url).port)).size).to.equal(4);
    expect(await Promise.all(runs.map((run) => run.ended))).to.deep.equal([0, 0]);
    for (const url of urls) expect(await connects(url)).to.equal(false);
  });

  it('uses a server that is named', async () => {
    const named = { REDIS_URL: 'redis://redis.example', DATABASE_URL: 'postgres://db.example/app' };
    const run = runProgram(WITH_SERVERS, ['--', 'sh', '-c', 'echo "$REDIS_URL $DATABASE_URL"'], named);
    expect(await run.line()).to.equal('redis://redis.example postgres://db.example/app');
  });

  it("ends with the command's exit code", async () => {
    const named = { REDIS_URL: 'redis://redis.example', DATABASE_URL: 'postgres://db.example/app' };
    expect(await runProgram(WITH_SERVERS, ['--', 'sh', '-c', 'exit 7'], named).ended).to.equal(7);
  });

  it('passes a signal on', async () => {
    const named = { REDIS_URL: 'redis://redis.example', DATABASE_URL: 'postgres://db.example/app' };
    const script = 'trap "echo got it; exit 3" TERM; echo ready; while :; do sleep 0.05; done';
    const run = runProgram(WITH_SERVERS, ['--', 'sh', '-c', script], named);
    expect(await run.line()).to.equal('ready');
    run.child.kill('SIGTERM');
    expect(await run.line()).to.equal('got it');
    expect(await run.ended).to.equal(3);
  });
});

/** `T` for a stopped process. Small images of Linux have no ps, macOS has no /proc. */
function stateOf(pid: number): string {
  if (process.platform !== 'linux') return execFileSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' });
  return /^State:\s*(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '';
}

async function durabilityOf(durable: boolean): Promise<string[]> {
  const server = await startPostgres({ durable });
  lend({ what: 'the private PostgreSQL', close: ({ keep }) => server.stop({ keep }) });
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    const { rows } = await client.query<{ setting: string }>(
      `select setting from pg_settings where name in ('fsync', 'synchronous_commit', 'full_page_writes')`,
    );
    return rows.map(({ setting }) => setting);
  } finally {
    await client.end();
  }
}

function connects(url: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}
