import type { Arguments } from './arguments.js';
import type { CommandOptions } from './option.js';
import type { Terminal } from './terminal.js';

/** One command of `gencache`. */
export interface Command {
  /** `['triggers', 'check']`. */
  readonly words: readonly string[];
  /** Its effect, in a line. */
  readonly summary: string;
  /** The required options, as the usage shows them: `--cache NAME`. */
  readonly needs?: string;
  readonly options: CommandOptions;
  /** Further facts for a user of the command. */
  readonly about?: string;
  readonly example: string;
  /** Resolves with the exit code. An error that it rejects with is printed: exit code 64 for a UsageError, else 1. */
  run(args: Arguments, terminal: Terminal): Promise<number>;
}

/** Exit code of a command that succeeded, and of a check without problems. */
export const OK = 0;
/** Exit code of a command that failed, and of a check with problems. */
export const FAILED = 1;
/** Exit code of a misuse: EX_USAGE of sysexits.h. */
export const MISUSED = 64;

/** The options of a command, with those that every command has. */
export function optionsOf(command: Command): CommandOptions {
  return { ...command.options, help: { help: 'prints this help' } };
}
