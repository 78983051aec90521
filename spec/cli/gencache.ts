import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Knex } from 'knex';
import { compiled } from '../support/compiled.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { databaseUrl, schemaOf } from '../support/postgres.js';
import { redisUrl } from '../support/redis.js';
import { CommandProcess } from './command-process.js';

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface Running {
  readonly child: ChildProcess;
  /** Resolves with the text on stderr once it matches. */
  said(pattern: RegExp): Promise<string>;
  /** Sends a signal, and resolves when the program has ended. */
  end(signal: NodeJS.Signals): Promise<Ran>;
  readonly ended: Promise<Ran>;
}

export type Env = Readonly<Record<string, string | undefined>>;

/** The environment of a program on the lent schema, and on the shared Redis or another one. */
export function serversOf(db: Knex, redis = redisUrl()): Env {
  return { DATABASE_URL: databaseUrl(schemaOf(db)), REDIS_URL: redis };
}

/** Starts the real program. The spec's end kills it if it still runs. */
export function startGencache(args: readonly string[], env: Env = {}): Running {
  const child = spawn(process.execPath, [compiled('lib/cli/main.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, DATABASE_URL: undefined, REDIS_URL: undefined, ...env },
  });
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, out, err }));
  lend({
    what: `gencache ${args.join(' ')}`,
    async close() {
      child.kill('SIGKILL');
      await ended;
    },
  });
  return {
    child,
    ended,
    said: (pattern) =>
      eventually(
        () => {
          if (pattern.test(err)) return err;
          throw new Error(`The program has not written ${String(pattern)} to stderr, but:\n${out}${err}`);
        },
        { withinMs: 15_000 },
      ),
    end(signal) {
      child.kill(signal);
      return ended;
    },
  };
}

const commands = new CommandProcess();

/**
 * Runs a command to its end, as the program does (`runProgram`), in a process that many commands share. `startGencache`
 * starts the program itself: for exit codes of a process, signals, and variables of the environment beside the addresses.
 */
export async function gencache(
  args: readonly string[],
  env: Readonly<Partial<Record<'DATABASE_URL' | 'REDIS_URL', string>>> = {},
): Promise<Ran> {
  const { ended, cancel } = commands.run({ args, env });
  lend({ what: `gencache ${args.join(' ')}`, close: cancel });
  const { code, out, err } = await ended;
  return { code, out, err };
}
