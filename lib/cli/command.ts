import type { Arguments, Options } from './arguments.js';
import type { Terminal } from './terminal.js';

/** One command of `gencache`. */
export interface Command {
  /** `['triggers', 'check']`. */
  readonly words: readonly string[];
  /** What it does, in a line. */
  readonly summary: string;
  /** Options that it needs, as the usage shows them: `--cache NAME`. */
  readonly needs?: string;
  readonly options: Options;
  /** What else who runs it should know. */
  readonly about?: string;
  readonly example: string;
  /** Returns the exit code. What it throws is told, and is exit code 1; a UsageError 64. */
  run(args: Arguments, terminal: Terminal): Promise<number>;
}

export const OK = 0;
export const FAILED = 1;
/** EX_USAGE of sysexits.h. */
export const USAGE = 64;

const HELP = { help: { help: 'prints this' } };

/** A command's options, with those that every command has. */
export function optionsOf(command: Command): Options {
  return { ...command.options, ...HELP };
}

export function usageOf({ words, needs }: Command): string {
  return `Usage: gencache ${words.join(' ')}${needs === undefined ? '' : ` ${needs}`} [options]`;
}

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

/** What commands there are, or those whose words begin so. */
export function overview(commands: readonly Command[]): string {
  const listed = commands.map(({ words, summary }) => [`gencache ${words.join(' ')}`, summary]);
  return `Usage: gencache <command> [options]\n\n${columns(listed)}\n\ngencache <command> --help tells its options, with an example.`;
}

/** Rows whose columns stand below each other. */
export function columns(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  return rows
    .map((row) => `  ${row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]!))).join('  ')}`)
    .join('\n');
}
