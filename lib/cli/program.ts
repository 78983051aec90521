/**
 * `gencache <command> [options]`: finds the command, reads its options, and turns what comes of it into an exit code.
 *
 *     0   done; and of a check: nothing is wrong
 *     1   it failed, or the check found something
 *     64  the command line breaks a rule; told on stderr, with the usage
 */
import { ConfigurationError } from '../errors/errors.js';
import { Arguments, UsageError } from './arguments.js';
import { type Command, FAILED, helpOf, OK, optionsOf, overview, USAGE, usageOf } from './command.js';
import { explain } from './explain.js';
import type { Terminal } from './terminal.js';

export async function run(commands: readonly Command[], argv: readonly string[], terminal: Terminal): Promise<number> {
  const command = commands.find(({ words }) => words.every((word, i) => argv[i] === word));
  if (command === undefined) return tellCommands(commands, argv, terminal);
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
      terminal.err(`${error.message}\n${usageOf(command)}\ngencache ${name} --help tells more.`);
      return USAGE;
    }
    const prefix = error instanceof ConfigurationError ? '' : `gencache ${name} failed: `;
    terminal.err(`${prefix}${explain(error)}`);
    return FAILED;
  }
}

/** No command: help was asked for, or something else was typed. */
function tellCommands(commands: readonly Command[], argv: readonly string[], terminal: Terminal): number {
  const asked = argv.some((word) => word === '--help' || word === '-h') || argv[0] === 'help';
  const words = argv.filter((word) => !word.startsWith('-') && word !== 'help');
  const meant = commands.filter((command) => words.every((word, i) => command.words[i] === word));
  const [word] = words;
  const group = commands.filter((command) => word !== undefined && command.words[0] === word);
  if (asked && meant.length > 0) {
    terminal.out(meant.length === 1 ? helpOf(meant[0]!) : overview(meant));
    return OK;
  }
  if (word !== undefined && meant.length === 0) terminal.err(`There is no command \`gencache ${words.join(' ')}\`.\n`);
  terminal.err(overview(group.length > 0 ? group : commands));
  return USAGE;
}
