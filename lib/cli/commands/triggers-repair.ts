import { checkTriggers, repairTriggers } from '../../knex/triggers/check-triggers.js';
import { isDeclarationFault } from '../../knex/triggers/declaration-faults.js';
import { type Command } from '../command.js';
import { withDatabase } from '../database.js';
import { DATABASE_OPTIONS } from '../option.js';
import { reportProblems } from './triggers-report.js';

export const triggersRepairCommand: Command = {
  words: ['triggers', 'repair'],
  summary: 'Installs missing and altered triggers again, for every cache',
  options: DATABASE_OPTIONS,
  about:
    'Each table is repaired in a transaction of its own, for which its writers wait. Changes made while triggers were\n' +
    'missing have no events, so bump global afterwards (`gencache bump`). Exits with 1 if a problem is left, and lists it.',
  example: 'gencache triggers repair',
  run: (args, terminal) =>
    withDatabase(args, terminal, async ({ db, outbox }) => {
      const missing = (await checkTriggers(db, outbox)).filter(({ problem }) => !isDeclarationFault(problem));
      const caches = new Set(missing.map(({ cache }) => cache));
      let failure: { readonly error: unknown } | undefined;
      const left = await repairTriggers(db, outbox).catch((error: unknown) => {
        failure = { error };
        return checkTriggers(db, outbox);
      });
      const code = reportProblems(args, terminal, left);
      if (caches.size > 0) {
        const bumps = [...caches].map((cache) => `\`gencache bump --cache ${cache}\``).join(', ');
        terminal.out(`Changes made while triggers were missing have no events. Bump global now: ${bumps}.`);
      }
      if (failure !== undefined) throw failure.error;
      return code;
    }),
};
