#!/usr/bin/env node
import { COMMANDS } from './commands/index.js';
import { runProgram } from './program.js';
import { Terminal } from './terminal.js';

/** A socket that is still open this long after the command's end hangs, so the process ends without it. In ms. */
const LINGER_MS = 1_000;

process.exitCode = await runProgram(COMMANDS, process.argv.slice(2), new Terminal());
setTimeout(() => process.exit(), LINGER_MS).unref();
