import { monotonicMs } from '../async/scheduling.js';
import type { Logger } from '../telemetry/log.js';
import type { Terminal } from './terminal.js';

/** Pause between two equal warnings, in ms: a server that is away fails twice a second. */
const REPEAT_AFTER_MS = 10_000;
/** Most warnings to remember. */
const REMEMBERED_MAX = 100;

/**
 * A logger that writes a line with time and level for each message. An equal warning within 10 s is not written; the next
 * one tells the number of those left out.
 */
export function logLines(terminal: Terminal, { verbose }: { readonly verbose: boolean }): Logger {
  const written = new Map<string, { readonly atMs: number; leftOut: number }>();
  const write = (level: string, message: string) => {
    terminal.err(`${new Date().toISOString()} ${level.padEnd(5)} ${message.replaceAll(/\s*\n\s*/g, ' | ')}`);
  };
  const warn = (message: string) => {
    const last = written.get(message);
    if (last !== undefined && monotonicMs() - last.atMs < REPEAT_AFTER_MS) {
      last.leftOut++;
      return;
    }
    const leftOut = last !== undefined && last.leftOut > 0 ? ` (and ${last.leftOut} times before)` : '';
    if (written.size >= REMEMBERED_MAX) written.clear();
    written.set(message, { atMs: monotonicMs(), leftOut: 0 });
    write('warn', `${message}${leftOut}`);
  };
  return {
    debug: (message) => {
      if (verbose) write('debug', message);
    },
    info: (message) => write('info', message),
    warn,
    error: (message) => write('error', message),
  };
}
