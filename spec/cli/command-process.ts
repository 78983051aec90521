import { type ChildProcess, fork } from 'node:child_process';
import { compiled } from '../support/compiled.js';
import type { CommandEnd, CommandRun } from '../programs/commands.js';

interface Pending {
  resolve(end: CommandEnd): void;
  reject(error: Error): void;
}

/** One process that runs commands one beside the other; started by the first of them. It ends with this process. */
export class CommandProcess {
  readonly #pending = new Map<number, Pending>();
  #child: ChildProcess | undefined;
  #runs = 0;

  run({ args, env }: Omit<CommandRun, 'id'>): { readonly ended: Promise<CommandEnd>; cancel(): void } {
    const child = (this.#child ??= this.#start());
    const id = this.#runs++;
    const ended = new Promise<CommandEnd>((resolve, reject) => this.#pending.set(id, { resolve, reject }));
    child.send({ id, args, env } satisfies CommandRun);
    return {
      ended,
      // A command can't be stopped from outside, other than with its process.
      cancel: () => void (this.#pending.has(id) && child.kill('SIGKILL')),
    };
  }

  #start(): ChildProcess {
    const child = fork(compiled('spec/programs/commands.ts'), {
      execArgv: [],
      env: { ...process.env, DATABASE_URL: undefined, REDIS_URL: undefined },
    });
    child.on('message', (end: CommandEnd) => {
      this.#pending.get(end.id)?.resolve(end);
      this.#pending.delete(end.id);
    });
    child.once('exit', (code, signal) => {
      this.#child = undefined;
      for (const { reject } of this.#pending.values()) {
        reject(new Error(`The process of commands ended with ${code ?? signal} before the command did.`));
      }
      this.#pending.clear();
    });
    child.unref();
    child.channel?.unref();
    return child;
  }
}
