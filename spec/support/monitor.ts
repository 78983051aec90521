import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

export interface Monitor {
  close(): void;
}

/** `+1339518083.107412 [0 127.0.0.1:60866] "set" "key" "value"`; a script's own commands come from `lua`. */
const LINE = /^\+[0-9.]+ \[[0-9]+ ([^\]]+)\] (.*)$/;
const ARGUMENT = /"((?:[^"\\]|\\.)*)"/g;

/**
 * Tells every command that a Redis carries out, from now on: MONITOR on a socket of its own. (A monitoring ioredis
 * client mistakes a line for a reply when another client connects in the moment that it starts.)
 */
export async function startMonitor(url: string, listener: (args: string[], client: string) => void): Promise<Monitor> {
  const { hostname, port, username, password } = new URL(url);
  const socket = connect(Number(port || 6379), hostname);
  socket.on('error', () => {});
  await once(socket, 'connect');
  const lines = createInterface({ input: socket });
  const started = new Promise<void>((resolve, reject) => {
    lines.on('close', () => reject(new Error('The monitored Redis closed the connection.')));
    lines.on('line', (line) => {
      const [, client, args] = LINE.exec(line) ?? [];
      if (args !== undefined)
        listener(
          [...args.matchAll(ARGUMENT)].map(([, text]) => text!),
          client!,
        );
      else if (line.startsWith('-')) reject(new Error(line));
      else if (line === '+OK' && --acknowledgements === 0) resolve();
    });
  });
  const commands = ['MONITOR'];
  if (password) commands.unshift(`AUTH ${username || 'default'} ${decodeURIComponent(password)}`);
  let acknowledgements = commands.length;
  socket.write(commands.map((command) => `${command}\r\n`).join(''));
  await started;
  return { close: () => socket.destroy() };
}
