import { checkTriggers } from '../../knex/triggers/check-triggers.js';
import { type Command } from '../command.js';
import { withDatabase } from '../database.js';
import { CACHE_FILTER, DATABASE_OPTIONS, JSON_OPTION } from '../option.js';
import { reportProblems } from './triggers-report.js';

export const triggersCheckCommand: Command = {
  words: ['triggers', 'check'],
  summary: 'Compares the triggers in the database with those that were installed',
  options: { cache: CACHE_FILTER, json: JSON_OPTION, ...DATABASE_OPTIONS },
  about:
    'Finds triggers that are missing (on new partitions, too), disabled or altered, tables and columns that changed, and\n' +
    'names that no application has published. Exits with 1 if it finds a change that is not bumped. It changes nothing, and takes no locks.',
  example: 'gencache triggers check --cache shop',
  run: (args, terminal) =>
    withDatabase(args, terminal, async ({ db, outbox }) =>
      reportProblems(args, terminal, await checkTriggers(db, outbox)),
    ),
};
