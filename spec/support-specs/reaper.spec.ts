import { expect } from 'chai';
import { existsSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { eventually } from '../support/deferred.js';
import { runProgram } from './programs/run.js';

interface Held {
  pid: number;
  folder: string;
}

describe('the reaper', () => {
  before(function () {
    if (process.platform !== 'linux') this.skip(); // the specs find a server's folder by /proc
  });

  it('leaves no server and no folder behind a process that gets SIGKILL', async () => {
    const { program, servers } = await holdServers();
    program.child.kill('SIGKILL');
    expect(await program.ended).to.equal('SIGKILL');
    await eventually(() => expectGone(servers));
  });

  it('ends also a Redis that is paused', async () => {
    const { program, servers } = await holdServers();
    process.kill(servers[0]!.pid, 'SIGSTOP');
    program.child.kill('SIGKILL');
    await eventually(() => expectGone(servers));
  });
});

async function holdServers() {
  const program = runProgram('spec/support-specs/programs/hold-servers.ts');
  const servers = JSON.parse(await program.line()) as Held[];
  for (const { pid, folder } of servers) {
    expect(folder).to.match(/\/gencache-(redis|postgres)-[0-9a-f]{12}$/);
    expect(folder.startsWith(tmpdir())).to.equal(true);
    expect(existsSync(folder)).to.equal(true);
    expect(runs(pid)).to.equal(true);
  }
  return { program, servers };
}

function expectGone(servers: Held[]): void {
  expect(servers.filter(({ pid }) => runs(pid))).to.deep.equal([]);
  expect(servers.filter(({ folder }) => existsSync(folder))).to.deep.equal([]);
}

/** False also for a zombie: that its new parent hasn't asked for its exit code is not our doing. */
function runs(pid: number): boolean {
  try {
    return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
