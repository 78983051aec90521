import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Account } from './reaper.js';

/** A program that runs in a server's folder: its output goes to `server.log` there, its pid to `server.pid`. */
export interface ServerProcess {
  readonly pid: number;
  /** Resolves when the process has ended. Never rejects. */
  readonly ended: Promise<void>;
  readonly running: boolean;
  /** Sends a signal; nothing happens if the process has ended. */
  signal(signal: NodeJS.Signals): void;
  /** True once it has ended, false if it still runs after so many ms. */
  endsWithin(ms: number): Promise<boolean>;
}

/**
 * Starts a program in a folder of `makeServerFolder`, as `account` if given. It leads its own process group, so
 * that a Ctrl-C in the terminal reaches only the specs, which then stop it. It doesn't keep Node alive.
 */
export async function launch(
  folder: string,
  program: string,
  args: readonly string[],
  account?: Account,
): Promise<ServerProcess> {
  const pidFile = join(folder, 'server.pid');
  const log = openSync(join(folder, 'server.log'), 'a', 0o600);
  // The shell writes its pid and then becomes the program: no moment in which the reaper could miss it.
  const child = spawn('/bin/sh', ['-c', 'echo "$$" > server.pid && exec "$@"', 'launch', program, ...args], {
    cwd: folder,
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
    ...account,
  });
  closeSync(log);
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => {
      rmSync(pidFile, { force: true }); // its number may soon be another process's
      resolve();
    });
  });
  const { pid } = child;
  if (pid === undefined) throw await new Promise((resolve) => child.once('error', resolve));
  child.unref();

  return {
    pid,
    ended,
    get running() {
      return child.exitCode === null && child.signalCode === null;
    },
    signal(signal) {
      child.kill(signal);
    },
    async endsWithin(ms) {
      child.ref();
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<false>((resolve) => (timer = setTimeout(resolve, ms, false)));
      try {
        return await Promise.race([ended.then(() => true), late]);
      } finally {
        clearTimeout(timer);
        child.unref();
      }
    },
  };
}

/** What the programs of a folder have printed so far; empty before the first. */
export function serverLog(folder: string): string {
  try {
    return readFileSync(join(folder, 'server.log'), 'utf8');
  } catch {
    return '';
  }
}
