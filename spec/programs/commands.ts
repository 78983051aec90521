/**
 * A process that runs commands of `gencache` as it is told to, since the start of a process takes longer than most
 * commands. The parent sends a `CommandRun` for each, and gets a `CommandEnd`.
 */
import { COMMANDS } from '../../lib/cli/commands/index.js';
import { runProgram } from '../../lib/cli/program.js';
import { Terminal } from '../../lib/cli/terminal.js';

export interface CommandRun {
  readonly id: number;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

export interface CommandEnd {
  readonly id: number;
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

process.on('message', (run: CommandRun) => {
  void end(run).then((ended) => process.send!(ended));
});
process.once('disconnect', () => process.exit());

async function end({ id, args, env }: CommandRun): Promise<CommandEnd> {
  let out = '';
  let err = '';
  const terminal = new Terminal({
    env,
    stdout: { write: (text) => (out += text) },
    stderr: { write: (text) => (err += text) },
  });
  return { id, code: await runProgram(COMMANDS, args, terminal), out, err };
}
