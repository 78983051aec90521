import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

export interface Monitor {
  /**
   * False for Valkey 8.1.0 and 8.1.1, which print quotes and backslashes of an argument as they are (valkey-io/valkey
   * issue 2035). An argument that contains a backslash, or `" "`, may then be told otherwise than it was sent.
   */
  readonly exact: boolean;
  close(): void;
}

/** `+1339518083.107412 [0 127.0.0.1:60866] "set" "key" "value"`; a script's own commands come from `lua`. */
const LINE = /^\+[0-9.]+ \[[0-9]+ ([^\]]+)\] (".*")$/;
const INEXACT = /^valkey_version:8\.1\.[01]$/;

/**
 * Tells every command that a Redis carries out, from now on, with its arguments decoded as UTF-8: MONITOR on a socket of
 * its own. (A monitoring ioredis client mistakes a line for a reply when another client connects in the moment that it
 * starts.)
 */
export async function startMonitor(url: string, listener: (args: string[], client: string) => void): Promise<Monitor> {
  const { hostname, port, username, password } = new URL(url);
  const socket = connect(Number(port || 6379), hostname);
  socket.on('error', () => {});
  await once(socket, 'connect');
  const lines = createInterface({ input: socket });
  let exact = true;
  const started = new Promise<void>((resolve, reject) => {
    lines.on('close', () => reject(new Error('The monitored Redis closed the connection.')));
    lines.on('line', (line) => {
      const [, client, args] = LINE.exec(line) ?? [];
      if (args !== undefined) {
        listener(exact ? split(args) : splitInexact(args), client!);
      } else if (INEXACT.test(line)) exact = false;
      else if (line.startsWith('-')) reject(new Error(line));
      else if (line === '+OK' && --acknowledgements === 0) resolve();
    });
  });
  const commands = ['INFO server', 'MONITOR'];
  if (password) commands.unshift(`AUTH ${username || 'default'} ${decodeURIComponent(password)}`);
  let acknowledgements = password ? 2 : 1;
  socket.write(commands.map((command) => `${command}\r\n`).join(''));
  await started;
  return { exact, close: () => socket.destroy() };
}

/** An argument as Redis's sdscatrepr prints it. */
const ARGUMENT = /"((?:[^"\\]|\\.)*)"/g;

function split(line: string): string[] {
  return [...line.matchAll(ARGUMENT)].map(([, text]) => decode(text!, /\\(x[0-9a-f]{2}|.)/g));
}

function splitInexact(line: string): string[] {
  return line
    .slice(1, -1)
    .split('" "')
    .map((text) => decode(text, /\\(x[0-9a-f]{2}|[nrtab])/g));
}

const NAMED: Readonly<Record<string, number>> = { n: 10, r: 13, t: 9, a: 7, b: 8 };

function decode(argument: string, escape: RegExp): string {
  const bytes = argument.replace(escape, (_, code: string) => {
    if (code.length === 3) return String.fromCharCode(parseInt(code.slice(1), 16));
    return code in NAMED ? String.fromCharCode(NAMED[code]!) : code;
  });
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
