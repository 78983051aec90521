/**
 * `gencache <command> [options]`: finds the command, parses its options, runs it, and returns the exit code.
 *
 *     0   the command succeeded; a check found no problem
 *     1   the command failed; a check found a problem
 *     64  the command line is wrong; the message and the usage are on stderr
 */
import { ConfigurationError } from '../errors/errors.js';
import { Arguments } from './arguments.js';
import { type Command, FAILED, MISUSED, OK, optionsOf } from './command.js';
import { explainError } from './explain-error.js';
import { helpOf, overview, usageOf } from './help.js';
import type { Terminal } from './terminal.js';
import { UsageError } from './usage-error.js';

export async function runProgram(
  commands: readonly Command[],
  argv: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const command = commands.find(({ words }) => words.every((word, i) => argv[i] === word));
  if (command === undefined) return showCommands(commands, argv, terminal);
  const name = command.words.join(' ');
  try {
    const args = new Arguments(argv.slice(command.words.length), optionsOf(command));
    if (args.flag('help')) {
      terminal.out(helpOf(command));
      return OK;
    }
    return await command.run(args, terminal);
  } catch (error) {
    if (error instanceof UsageError) {
      terminal.err(`${error.message}\n${usageOf(command)}\ngencache ${name} --help prints its options.`);
      return MISUSED;
    }
    // The message of a ConfigurationError stands alone.
    const prefix = error instanceof ConfigurationError ? '' : `gencache ${name} failed: `;
    terminal.err(`${prefix}${explainError(error)}`);
    return FAILED;
  }
}

/** The command line names no command: it asks for help, or it is wrong. */
function showCommands(commands: readonly Command[], argv: readonly string[], terminal: Terminal): number {
  const asksForHelp = argv.some((word) => word === '--help' || word === '-h') || argv[0] === 'help';
  const words = argv.filter((word) => !word.startsWith('-') && word !== 'help');
  const matching = commands.filter((command) => words.every((word, i) => command.words[i] === word));
  const [word] = words;
  const group = commands.filter((command) => word !== undefined && command.words[0] === word);
  if (asksForHelp && matching.length > 0) {
    terminal.out(matching.length === 1 ? helpOf(matching[0]!) : overview(matching));
    return OK;
  }
  if (word !== undefined && matching.length === 0) {
    terminal.err(`There is no command \`gencache ${words.join(' ')}\`.\n`);
  }
  terminal.err(overview(group.length > 0 ? group : commands));
  return MISUSED;
}
