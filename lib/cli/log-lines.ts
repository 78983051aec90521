import type { Logger } from '../telemetry/log.js';
import type { Terminal } from './terminal.js';

/** A line that was written is not written again for so long, in ms: a server that is away fails twice a second. */
const REPEAT_AFTER_MS = 10_000;
const REMEMBERED_MAX = 100;

/** Writes a line for each message, with its time and level; the same one again only now and then, with its count. */
export function logLines(terminal: Terminal, { verbose }: { readonly verbose: boolean }): Logger {
  const written = new Map<string, { readonly atMs: number; more: number }>();
  const write = (level: string, message: string) => {
    terminal.err(`${new Date().toISOString()} ${level.padEnd(5)} ${message.replaceAll(/\s*\n\s*/g, ' | ')}`);
  };
  const writeOnce = (level: string) => (message: string) => {
    const last = written.get(message);
    if (last !== undefined && performance.now() - last.atMs < REPEAT_AFTER_MS) {
      last.more++;
      return;
    }
    const more = last !== undefined && last.more > 0 ? ` (and ${last.more} times before)` : '';
    if (written.size >= REMEMBERED_MAX) written.clear();
    written.set(message, { atMs: performance.now(), more: 0 });
    write(level, `${message}${more}`);
  };
  return {
    debug: (message) => {
      if (verbose) write('debug', message);
    },
    info: (message) => write('info', message),
    warn: writeOnce('warn'),
    error: (message) => write('error', message),
  };
}
