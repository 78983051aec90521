import { requireInstalledOutbox } from '../../knex/outbox/installed-outbox.js';
import { displayName } from '../../knex/postgres/identifiers.js';
import { removeTriggers } from '../../knex/triggers/remove-triggers.js';
import { installedDefinitions } from '../../knex/triggers/trigger-registry.js';
import { type Command, FAILED, OK } from '../command.js';
import { withDatabase } from '../database.js';
import { CACHE_OPTION, DATABASE_OPTIONS } from '../option.js';

export const triggersRemoveCommand: Command = {
  words: ['triggers', 'remove'],
  summary: "Removes a cache's triggers from a table, or what a dropped table left of them",
  needs: '--cache NAME --table NAME',
  options: {
    cache: CACHE_OPTION,
    table: { value: 'NAME', help: 'the table as `triggers check` names it: public.shop_order' },
    ...DATABASE_OPTIONS,
  },
  about:
    'The recorded events stay in the outbox. From then on a change of the table by a writer that does not bump goes\n' +
    'unnoticed.',
  example: 'gencache triggers remove --cache shop --table public.shop_order',
  run: (args, terminal) => {
    const cache = args.cache();
    const wanted = args.requiredText('table', 'the name of a table');
    return withDatabase(args, terminal, async ({ db, outbox }) => {
      const own = await installedDefinitions(db, await requireInstalledOutbox(db, outbox), { cache });
      const tables = new Map(own.map((definition) => [displayName(definition.schema, definition.table), definition]));
      const matching = [...tables].filter(([name, { table }]) => name === wanted || table === wanted);
      const [only] = matching;
      if (only === undefined || matching.length > 1) {
        const names = [...tables.keys()].join(', ') || '(no table)';
        const fault = matching.length === 0 ? `but got ${wanted}` : `but ${wanted} is the name of several`;
        terminal.err(
          `--table must be a table with triggers of the cache "${cache}", ${fault}. Its tables with triggers: ${names}.`,
        );
        return FAILED;
      }
      const [name, { schema, table }] = only;
      await removeTriggers(db, table, { cache, schema, outbox });
      terminal.out(`The triggers of the cache "${cache}" on ${name} are removed.`);
      return OK;
    });
  },
};
