import type { Arguments } from './arguments.js';
import type { Terminal } from './terminal.js';
import { UsageError } from './usage-error.js';

/** The source of a server address: an option, else a variable of the environment. */
interface UrlSource {
  readonly option: string;
  readonly variable: string;
  /** Accepted ones; the first is the usual one. */
  readonly protocols: readonly string[];
}

/** The address of a server. Its password is hidden from the terminal. Throws UsageError, without the address. */
export function serverUrl(args: Arguments, terminal: Terminal, { option, variable, protocols }: UrlSource): string {
  const text = args.text(option) ?? process.env[variable];
  if (!text) {
    throw new UsageError(
      `${variable} must be the address of a server, but is not set. Set it, or add --${option} URL.`,
    );
  }
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !protocols.includes(url.protocol)) {
    const name = args.text(option) === undefined ? variable : `--${option}`;
    throw new UsageError(
      `${name} must be a URL that begins with ${protocols[0]}//, but got another text, which may hold a password and is ` +
        'not shown. Percent-encode the characters :/?#@ of a password.',
    );
  }
  terminal.hide(url);
  return text;
}
