import { checkTriggers, repairTriggers, type TriggerProblem } from '../knex/triggers/check.js';
import { type Arguments, CACHE, JSON_OUTPUT } from './arguments.js';
import { columns, type Command, FAILED, OK } from './command.js';
import { type Database, DATABASE, withDatabase } from './servers.js';
import type { Terminal } from './terminal.js';

const OPTIONS = { cache: { ...CACHE, help: 'only those of this cache' }, json: JSON_OUTPUT, ...DATABASE };

export const triggersCheck: Command = {
  words: ['triggers', 'check'],
  summary: 'Compares the triggers that were installed with those that are there',
  options: OPTIONS,
  about:
    'Tells what is missing (on new partitions, too), switched off, or altered, and tables and columns that changed.\n' +
    'Exits with 1 if there is anything. Changes and locks nothing.',
  example: 'gencache triggers check --cache shop',
  run: (args, terminal) => withDatabase(args, terminal, {}, (database) => tellProblems(args, terminal, database)),
};

export const triggersRepair: Command = {
  words: ['triggers', 'repair'],
  summary: 'Installs again what the check finds missing or altered, for every cache',
  options: DATABASE,
  about:
    'In one transaction; writers to the tables that lack something wait for it. What was written before is not known:\n' +
    'bump global after (`cache.bump()`). Exits with 1 if something is left that it can not repair.',
  example: 'gencache triggers repair',
  run: (args, terminal) =>
    withDatabase(args, terminal, {}, async (database) => {
      const before = await checkTriggers(database.db, database.outbox);
      await repairTriggers(database.db, database.outbox);
      const code = await tellProblems(args, terminal, database);
      if (before.length > 0) {
        terminal.out('What was written while something was missing has not been bumped: bump global now.');
      }
      return code;
    }),
};

async function tellProblems(args: Arguments, terminal: Terminal, { db, outbox }: Database): Promise<number> {
  const cache = args.anyCache();
  const all = await checkTriggers(db, outbox);
  const problems = cache === undefined ? all : all.filter((problem) => problem.cache === cache);
  if (args.flag('json')) terminal.out(JSON.stringify(problems));
  else if (problems.length === 0) terminal.out('The triggers are as they were installed.');
  else terminal.out(columns(problems.flatMap(shown)));
  return problems.length === 0 ? OK : FAILED;
}

function shown({ cache, table, problem, message, remedy }: TriggerProblem): string[][] {
  return [
    [cache, table, problem, message],
    ['', '', '', `-> ${remedy}`],
  ];
}
