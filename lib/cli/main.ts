#!/usr/bin/env node
import { COMMANDS } from './commands/index.js';
import { run } from './program.js';
import { Terminal } from './terminal.js';

/** What is still open by then hangs, and all that was to be said has been, in ms. */
const LINGER_MS = 1_000;

process.exitCode = await run(COMMANDS, process.argv.slice(2), new Terminal());
setTimeout(() => process.exit(), LINGER_MS).unref();
