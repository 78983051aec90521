import { checkTriggers, repairTriggers, type TriggerProblem } from '../../knex/triggers/check-triggers.js';
import { requireInstalledOutbox } from '../../knex/outbox/installed-outbox.js';
import { installedDefinitions } from '../../knex/triggers/trigger-registry.js';
import { displayName } from '../../knex/postgres/identifiers.js';
import { removeTriggers } from '../../knex/triggers/remove-triggers.js';
import { type Arguments, CACHE, JSON_OUTPUT, UsageError } from '../arguments.js';
import { columns, type Command, FAILED, OK } from '../command.js';
import { DATABASE, withDatabase } from '../servers.js';
import type { Terminal } from '../terminal.js';

const OPTIONS = { cache: { ...CACHE, help: 'only those of this cache' }, json: JSON_OUTPUT, ...DATABASE };

export const triggersCheck: Command = {
  words: ['triggers', 'check'],
  summary: 'Compares the triggers that were installed with those that are there',
  options: OPTIONS,
  about:
    'Tells what is missing (on new partitions, too), switched off, or altered, and tables and columns that changed.\n' +
    'Exits with 1 if there is anything. Changes and locks nothing.',
  example: 'gencache triggers check --cache shop',
  run: (args, terminal) =>
    withDatabase(args, terminal, {}, async ({ db, outbox }) =>
      tellProblems(args, terminal, await checkTriggers(db, outbox)),
    ),
};

export const triggersRepair: Command = {
  words: ['triggers', 'repair'],
  summary: 'Installs again what the check finds missing or altered, for every cache',
  options: DATABASE,
  about:
    'A transaction for each; writers to the tables that lack something wait for it. What was written before is not known:\n' +
    'bump global after (`gencache bump`). Exits with 1 if something is left that it can not repair, and tells what.',
  example: 'gencache triggers repair',
  run: (args, terminal) =>
    withDatabase(args, terminal, {}, async ({ db, outbox }) => {
      const caches = new Set((await checkTriggers(db, outbox)).map(({ cache }) => cache));
      let failure: { readonly error: unknown } | undefined;
      const left = await repairTriggers(db, outbox).catch((error: unknown) => {
        failure = { error };
        return checkTriggers(db, outbox);
      });
      const code = tellProblems(args, terminal, left);
      if (caches.size > 0) {
        const bumps = [...caches].map((cache) => `\`gencache bump --cache ${cache}\``).join(', ');
        terminal.out(
          `What was written while something was missing may not have been bumped. Bump global now: ${bumps}.`,
        );
      }
      if (failure !== undefined) throw failure.error;
      return code;
    }),
};

export const triggersRemove: Command = {
  words: ['triggers', 'remove'],
  summary: "Takes a cache's triggers away from a table, or what is left of them where it was dropped",
  needs: '--cache NAME --table TABLE',
  options: {
    cache: CACHE,
    table: { value: 'TABLE', help: 'the table as `triggers check` names it: public.shop_order' },
    ...DATABASE,
  },
  about: 'What they recorded stays in the outbox. From then on nobody notices writers to that table who do not bump.',
  example: 'gencache triggers remove --cache shop --table public.shop_order',
  run: (args, terminal) => {
    const cache = args.cache();
    const named = args.text('table');
    if (named === undefined) throw new UsageError('This command is about one table. None is named. Add --table TABLE.');
    return withDatabase(args, terminal, {}, async ({ db, outbox }) => {
      const own = await installedDefinitions(db, await requireInstalledOutbox(db, outbox), { cache });
      const tables = new Map(own.map((definition) => [displayName(definition.schema, definition.table), definition]));
      const meant = [...tables].filter(([name, { table }]) => name === named || table === named);
      const [only] = meant;
      if (only === undefined || meant.length > 1) {
        const there = [...tables.keys()].join(', ') || 'none';
        terminal.err(
          `--table is one that ${cache} has triggers on. ${meant.length === 0 ? 'This is none' : 'There are several'}: ` +
            `${named}. Those it has: ${there}.`,
        );
        return FAILED;
      }
      const [name, { schema, table }] = only;
      await removeTriggers(db, table, { cache, schema, outbox });
      terminal.out(`The triggers of ${cache} on ${name} are gone.`);
      return OK;
    });
  },
};

function tellProblems(args: Arguments, terminal: Terminal, all: readonly TriggerProblem[]): number {
  const cache = args.anyCache();
  const problems = cache === undefined ? all : all.filter((problem) => problem.cache === cache);
  if (args.flag('json')) terminal.out(JSON.stringify(problems));
  else if (problems.length === 0) terminal.out('The triggers are as they were installed.');
  else terminal.out(columns(problems.flatMap(rows)));
  return problems.length === 0 ? OK : FAILED;
}

function rows({ cache, table, problem, message, remedy }: TriggerProblem): string[][] {
  return [
    [cache, table, problem, message],
    ['', '', '', `-> ${remedy}`],
  ];
}
