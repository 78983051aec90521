import type { TriggerProblem } from '../../knex/triggers/check-triggers.js';
import type { Arguments } from '../arguments.js';
import { columns } from '../columns.js';
import { FAILED, OK } from '../command.js';
import type { Terminal } from '../terminal.js';

/** Prints the problems of the triggers, with a remedy for each. Returns the exit code: FAILED if one is broken. */
export function reportProblems(args: Arguments, terminal: Terminal, all: readonly TriggerProblem[]): number {
  const cache = args.cacheFilter();
  const problems = cache === undefined ? all : all.filter((problem) => problem.cache === cache);
  if (args.flag('json')) terminal.out(JSON.stringify(problems));
  else if (problems.length === 0) terminal.out('The triggers are as they were installed.');
  else terminal.out(columns(problems.flatMap(toRows)));
  return problems.some(({ severity }) => severity === 'broken') ? FAILED : OK;
}

function toRows({ cache, table, problem, message, remedy }: TriggerProblem): string[][] {
  return [
    [cache, table, problem, message],
    ['', '', '', `-> ${remedy}`],
  ];
}
