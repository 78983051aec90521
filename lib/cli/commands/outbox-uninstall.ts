import { installedRelease, uninstallOutbox } from '../../knex/install/install-outbox.js';
import { type Command, OK } from '../command.js';
import { withDatabase } from '../database.js';
import { DATABASE_OPTIONS } from '../option.js';
import { UsageError } from '../usage-error.js';

export const outboxUninstallCommand: Command = {
  words: ['outbox', 'uninstall'],
  summary: 'Drops the outbox with its waiting events, and every trigger of every cache',
  needs: '--yes',
  options: { yes: { help: 'confirms the loss of the waiting events of every cache' }, ...DATABASE_OPTIONS },
  about: 'Stop the relays first. Changes whose events still wait are never bumped: readers may see old data for a TTL.',
  example: 'gencache outbox uninstall --yes',
  async run(args, terminal) {
    if (!args.flag('yes')) {
      throw new UsageError(
        '--yes must confirm that the waiting events of every cache are lost, but is missing. Add --yes to uninstall.',
      );
    }
    return withDatabase(args, terminal, async ({ db, outbox }) => {
      const before = await installedRelease(db, outbox);
      await uninstallOutbox(db, outbox);
      terminal.out(
        before === undefined ? 'There is no outbox to uninstall.' : `The outbox of release ${before} is uninstalled.`,
      );
      return OK;
    });
  },
};
