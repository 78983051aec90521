import { redactor, type ServerAddress } from './redact.js';

/**
 * The output of commands: results to stdout, all else to stderr, without passwords.
 *
 * Messages of drivers, and arguments that a message repeats, may hold the URL of a connection. So every text passes
 * through a redactor, which takes out the passwords in URLs and every password given to `hide`.
 */
export class Terminal {
  readonly #addresses: ServerAddress[] = [];
  #redact = redactor();

  /** Hides the passwords of this address from now on. */
  hide(address: ServerAddress): void {
    this.#addresses.push(address);
    this.#redact = redactor(...this.#addresses);
  }

  out(text: string): void {
    process.stdout.write(`${this.#redact(text)}\n`);
  }

  err(text: string): void {
    process.stderr.write(`${this.#redact(text)}\n`);
  }
}
