/**
 * Runs a command with a Redis and a PostgreSQL: `tsx spec/support/servers/with-servers.ts -- <command...>`.
 *
 * The command finds them in REDIS_URL and DATABASE_URL; one that is already set is used as it is. The servers are
 * private and removed when the command ends, whose exit code (or 128 + its signal) becomes this one's.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { startMissingServers } from './missing-servers.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

async function main(): Promise<number> {
  const dashes = process.argv.indexOf('--');
  const [command, ...args] = dashes === -1 ? [] : process.argv.slice(dashes + 1);
  if (command === undefined) {
    process.stderr.write('Usage: tsx spec/support/servers/with-servers.ts -- <command> [argument...]\n');
    return 64;
  }

  let stopped: NodeJS.Signals | undefined;
  let passOn = (signal: NodeJS.Signals): void => {
    stopped = signal;
  };
  for (const signal of SIGNALS) process.on(signal, () => passOn(signal));

  const servers = await startMissingServers();
  try {
    if (stopped !== undefined) return 128 + constants.signals[stopped];
    const child = spawn(command, args, { stdio: 'inherit', env: { ...process.env, ...servers.env } });
    passOn = (signal) => {
      // A terminal has sent its Ctrl-C to the command already; many programs take a second one as "at once".
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
    };
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
    return signal === null ? (code ?? 1) : 128 + constants.signals[signal];
  } finally {
    await servers.stop();
  }
}

process.exitCode = await main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  return 1;
});
