/** Faults of the process that reads without a round trip (`local`, `mode: 'track'`): it is stopped, and its clock jumps. */
import { setTimeout } from 'node:timers/promises';
import { expect } from 'chai';
import { runProgram } from '../support-specs/programs/run.js';
import { lendCache } from '../support/cache.js';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis, uniqueName } from '../support/redis.js';

const HEARTBEAT_MS = 400;

describe('a process that reads without a round trip', () => {
  /** A reading process, which answers version 1 by itself, and a writer. */
  async function lendReading() {
    const { url, port } = await privateRedis();
    const pushes = await startProxy(port);
    const admin = lendRedis({ url });
    const name = uniqueName();
    const { items } = lendCache({ name, url });
    let version = 0;
    /** By version: since when it is old. */
    const old = new Map<string, number>();
    const bump = async () => {
      await admin.set(`${name}:row`, version + 1);
      await items.bump({ item: 1 });
      old.set(String(version++), Number(process.hrtime.bigint()) / 1e6);
    };
    await bump();
    const program = runProgram('spec/programs/tracked-reads.ts', [
      url,
      name,
      String(HEARTBEAT_MS),
      String(pushes.port),
    ]);
    /** Judges the next line. Returns its kind, and the answer from then on or what was fetched. */
    const line = async (): Promise<readonly [kind: string, answer: string]> => {
      const [kind, first, ...rest] = (await program.line()).split(' ') as [string, string, ...string[]];
      if (kind === 'answered') {
        const oldForMs = Number(rest[0]) - (old.get(first) ?? Infinity);
        expect(oldForMs, `${first} was answered, and old, in ms`).to.be.at.most(HEARTBEAT_MS);
        return [kind, rest[1]!];
      }
      if (kind !== 'stopped') return [kind, first];
      expect(first).to.equal('undefined');
      return [kind, rest[0]!];
    };
    const answers = async (value: string | number) => {
      for (;;) if ((await line()).join(' ') === `answered ${value}`) return;
    };
    await answers(1);
    return { pushes, bump, line, answers, child: program.child };
  }

  it('answers nothing by itself after it was stopped, before it reads a push', async () => {
    const { child, bump, line } = await lendReading();
    for (let [stops, version] = [0, 2]; stops < 2; version++) {
      child.kill('SIGSTOP');
      await bump();
      await setTimeout(2 * HEARTBEAT_MS);
      child.kill('SIGCONT');
      for (let answer: string | undefined; answer !== String(version);) {
        const [kind, now] = await line();
        // It may have been stopped between two turns, where it tells nothing of it, and by the machine before.
        if (kind !== 'stopped') answer = now;
        else if (now === String(version)) stops++;
      }
    }
  });

  it('answers nothing by itself once its clock was set forward, until the next beat, nor for longer once it was set back', async () => {
    const { pushes, child, bump, line, answers } = await lendReading();
    const clock = async (signal: NodeJS.Signals) => {
      child.kill(signal);
      for (;;) {
        const [kind, answer] = await line();
        if (kind === 'clock') return answer;
      }
    };
    expect(await clock('SIGUSR2')).to.equal('undefined');
    await answers(1);

    await clock('SIGHUP');
    pushes.holdReplies();
    await bump();
    await answers('undefined');
    await setTimeout(2 * HEARTBEAT_MS);
    pushes.releaseReplies();
    await answers(2);
  });
});
