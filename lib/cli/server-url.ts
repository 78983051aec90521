import type { Arguments } from './arguments.js';
import type { ServerAddress } from './redact.js';
import type { Terminal } from './terminal.js';
import { UsageError } from './usage-error.js';

/** The source of a server address: an option, else a variable of the environment. */
interface UrlSource {
  readonly option: string;
  readonly variable: string;
  /** The beginnings of accepted addresses; the first is the usual one. */
  readonly beginnings: readonly string[];
  /** Parses an address with the driver's own parser, and returns its passwords. Throws where the driver would. */
  readonly secretsOf: (address: string) => readonly ServerAddress[];
}

/**
 * The address of a server, in any spelling that its driver takes. Its password is hidden from the terminal. Throws
 * UsageError, without the address.
 */
export function serverUrl(args: Arguments, terminal: Terminal, source: UrlSource): string {
  const { option, variable, beginnings, secretsOf } = source;
  const text = args.text(option) ?? terminal.env[variable];
  if (!text) {
    throw new UsageError(
      `${variable} must be the address of a server, but is not set. Set it, or add --${option} URL.`,
    );
  }
  const name = args.text(option) === undefined ? variable : `--${option}`;
  try {
    if (!beginnings.some((beginning) => text.startsWith(beginning))) throw new Error('not an address of this driver');
    for (const secret of secretsOf(text)) terminal.hide(secret);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const { code, path } = error as NodeJS.ErrnoException;
    if (code !== undefined && path !== undefined) {
      throw new UsageError(`${name} names a file that can't be read: ${path} (${code}). Correct the path.`);
    }
    throw new UsageError(
      `${name} must be an address that begins with ${beginnings[0]} and can be parsed, but got another text, which may hold a password and is ` +
        'not shown. Percent-encode the characters :/?#@ of a password.',
    );
  }
  return text;
}
