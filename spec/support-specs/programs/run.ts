import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { compiled } from '../../support/compiled.js';
import { lend } from '../../support/lenders.js';

export interface Program {
  readonly child: ChildProcess;
  readonly pid: number;
  /** The next line that it prints. Throws what it printed to stderr if it ends before. */
  line(): Promise<string>;
  /** Its exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
  /** All that it printed, to stdout and then to stderr, once it has ended. */
  text(): Promise<string>;
}

/**
 * Runs a program of the repository, named by its path there, in Node; killed after the spec if it still runs. One of
 * specs, in a folder `programs`, is compiled before; others Node reads by tsx.
 */
export function runProgram(file: string, args: string[] = [], env: NodeJS.ProcessEnv = {}): Program {
  const command = file.includes('/programs/')
    ? [compiled(file)]
    : ['--import', 'tsx', fileURLToPath(new URL(`../../../${file}`, import.meta.url))];
  const child = spawn(process.execPath, [...command, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  const ended = once(child, 'exit').then(([code, signal]) => (signal ?? code) as number | NodeJS.Signals);
  let errors = '';
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  lend({ what: `the program ${file}`, close: () => void child.kill('SIGKILL') });
  const closed = once(child, 'close');
  return {
    child,
    pid: child.pid!,
    ended,
    async text() {
      await closed;
      return output + errors;
    },
    async line() {
      while (!output.includes('\n')) {
        const [event] = await Promise.race([once(child.stdout, 'data'), closed.then(() => ['closed'])]);
        if (event === 'closed' && !output.includes('\n')) throw new Error(`${file} ended without a line:\n${errors}`);
      }
      const end = output.indexOf('\n');
      const line = output.slice(0, end);
      output = output.slice(end + 1);
      return line;
    },
  };
}
