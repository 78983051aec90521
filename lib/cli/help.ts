import { columns } from './columns.js';
import { type Command, optionsOf } from './command.js';

/** The line that shows how to call a command. */
export function usageOf({ words, needs }: Command): string {
  return `Usage: gencache ${words.join(' ')}${needs === undefined ? '' : ` ${needs}`} [options]`;
}

/** The help of one command: usage, effect, options, example. */
export function helpOf(command: Command): string {
  const options = Object.entries(optionsOf(command)).map(([name, { value, multiple, help }]) => [
    `--${name}${value === undefined ? '' : ` ${value}`}${multiple === true ? ' ...' : ''}`,
    help,
  ]);
  return [
    `${usageOf(command)}\n`,
    `${command.summary}.${command.about === undefined ? '' : `\n${command.about}`}\n`,
    `Options:\n${columns(options)}\n`,
    `Example:\n  ${command.example}`,
  ].join('\n');
}

/** The list of these commands. */
export function overview(commands: readonly Command[]): string {
  const listed = commands.map(({ words, summary }) => [`gencache ${words.join(' ')}`, summary]);
  return `Usage: gencache <command> [options]\n\n${columns(listed)}\n\ngencache <command> --help prints its options and an example.`;
}
