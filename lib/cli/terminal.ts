import { redactor, type ServerAddress } from './redact.js';

/** The part of a process that a command uses. */
interface CommandProcess {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: { write(text: string): unknown };
  readonly stderr: { write(text: string): unknown };
}

/**
 * The environment of commands, and their output: results to stdout, all else to stderr, without passwords.
 *
 * Messages of drivers, and arguments that a message repeats, may hold the URL of a connection. So every text passes
 * through a redactor, which takes out the passwords in URLs and every password given to `hide`.
 */
export class Terminal {
  readonly #process: CommandProcess;
  readonly #addresses: ServerAddress[] = [];
  #redact = redactor();

  constructor(process: CommandProcess) {
    this.#process = process;
  }

  get env(): CommandProcess['env'] {
    return this.#process.env;
  }

  /** Hides the passwords of this address from now on. */
  hide(address: ServerAddress): void {
    this.#addresses.push(address);
    this.#redact = redactor(...this.#addresses);
  }

  out(text: string): void {
    this.#process.stdout.write(`${this.#redact(text)}\n`);
  }

  err(text: string): void {
    this.#process.stderr.write(`${this.#redact(text)}\n`);
  }
}
