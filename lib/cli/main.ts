#!/usr/bin/env node
import { setTimeout } from '../async/scheduling.js';
import { FAILED } from './command.js';
import { COMMANDS } from './commands/index.js';
import { runProgram } from './program.js';
import { Terminal } from './terminal.js';

/** A socket that is still open this long after the command's end hangs, so the process ends without it. In ms. */
const LINGER_MS = 1_000;

// A command that has not ended has failed, also where the event loop runs dry before its end.
process.exitCode = FAILED;
void runProgram(COMMANDS, process.argv.slice(2), new Terminal(process)).then((code) => {
  process.exitCode = code;
  setTimeout(() => process.exit(), LINGER_MS).unref();
});
