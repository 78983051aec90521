/**
 * Which commands a piece of work sends to Redis, in order: the round trips that specs pin.
 *
 * MONITOR tells them on a connection of the recorder's own. Two markers, an ECHO each from a further connection,
 * bound the recording: the first is seen before the work starts, the second is sent when the work has settled.
 *
 * **Invariant.** Every command that was answered during the work is recorded: Redis runs one command at a time and
 * tells its monitors in that order, so it stands between the markers. A command that the spec did not await may come later.
 * Arguments are as they were sent, unless the server prints them inexactly (`Recording.exact`).
 */
import { randomBytes } from 'node:crypto';
import { Redis } from 'ioredis';
import { deferred } from './deferred.js';
import { startMonitor } from './monitor.js';

/** Whether a process that tracks generations sent this command by itself: it writes a beat. */
export function isBeat(command: readonly string[]): boolean {
  return command.some((part) => part.includes('}:h:'));
}

export interface RecordOptions {
  /**
   * Only commands with an argument that contains this text, such as the spec's unique name, so that the shared
   * server's other users are not recorded; or of which a function says so. A MULTI and its EXEC count as what
   * stands between them.
   */
  readonly from?: string | ((command: readonly string[], client: string) => boolean);
  /** Also commands about connections and the server, which carry no keys: INFO, CLIENT, SCRIPT and the like. */
  readonly keyless?: boolean;
}

export interface Recording<T> {
  readonly result: T;
  /** Each command's name, in capitals, and its arguments, decoded as UTF-8. */
  readonly commands: string[][];
  /** See `Monitor.exact`. */
  readonly exact: boolean;
}

const MARKER_MS = 5_000;

const KEYLESS: ReadonlySet<string> = new Set(
  (
    'ACL AUTH CLIENT CLUSTER COMMAND CONFIG DBSIZE DEBUG ECHO FUNCTION HELLO INFO LATENCY MODULE MONITOR PING QUIT ' +
    'READONLY RESET ROLE SCRIPT SELECT SLOWLOG TIME WAIT'
  ).split(' '),
);

/**
 * Runs the work and tells the commands that clients sent to this Redis meanwhile; those that a script runs are
 * the script's own affair and left out. Rejects as the work does. Costs two connections and their markers.
 */
export async function recordCommands<T>(
  url: string,
  work: () => T | Promise<T>,
  options: RecordOptions = {},
): Promise<Recording<T>> {
  const marking = new Redis(url, { retryStrategy: () => null });
  const heard: { command: string[]; client: string }[] = [];
  let seen: { marker: string; resolve(): void } | undefined;
  const monitor = await startMonitor(url, (command, client) => {
    if (client === 'lua') return;
    if (command[1] !== undefined && command[1] === seen?.marker) seen.resolve();
    else heard.push({ command: [command[0]!.toUpperCase(), ...command.slice(1)], client });
  });
  try {
    const mark = async () => {
      const { promise, resolve, reject } = deferred();
      const late = setTimeout(() => reject(new Error(`MONITOR has not told a marker in ${MARKER_MS} ms.`)), MARKER_MS);
      seen = { marker: randomBytes(12).toString('hex'), resolve };
      try {
        await Promise.all([marking.echo(seen.marker), promise]);
      } finally {
        clearTimeout(late);
      }
    };

    await mark();
    heard.length = 0;
    const result = await work();
    await mark();
    return { result, commands: select(heard, options), exact: monitor.exact };
  } finally {
    monitor.close();
    marking.disconnect();
  }
}

function select(heard: { command: string[]; client: string }[], { from, keyless = false }: RecordOptions): string[][] {
  const wanted = (command: string[], client: string): boolean => {
    if (typeof from === 'function') return from(command, client);
    return from === undefined || command.slice(1).some((argument) => argument.includes(from));
  };
  const selected = heard.map(
    ({ command, client }) => (keyless && from === undefined) || (hasKeys(command, keyless) && wanted(command, client)),
  );
  // A transaction's frame has no keys: it goes with what stands between.
  heard.forEach(({ command, client }, opening) => {
    if (command[0] !== 'MULTI') return;
    const closing = heard.findIndex(
      (other, at) => at > opening && other.client === client && /^(EXEC|DISCARD)$/.test(other.command[0]!),
    );
    const frame = closing === -1 ? [opening] : [opening, closing];
    const end = closing === -1 ? heard.length : closing;
    const inside = heard.some((other, at) => at > opening && at < end && other.client === client && selected[at]);
    for (const at of frame) selected[at] = inside || selected[at]!;
  });
  return heard.filter((_, at) => selected[at]).map(({ command }) => command);
}

function hasKeys([name]: string[], keyless: boolean): boolean {
  return keyless || !KEYLESS.has(name!);
}
