import { installedRelease, installOutbox, OUTBOX_RELEASE } from '../../knex/install/install-outbox.js';
import { type Command, OK } from '../command.js';
import { withDatabase } from '../database.js';
import { DATABASE_OPTIONS } from '../option.js';

export const outboxInstallCommand: Command = {
  words: ['outbox', 'install'],
  summary: 'Creates the outbox, or upgrades an older release of it',
  options: DATABASE_OPTIONS,
  about:
    'The waiting events stay. The command changes nothing if the outbox has this release. `installOutbox` in a migration\n' +
    'of your own does the same, and keeps all databases alike.',
  example: 'gencache outbox install --schema audit',
  run: (args, terminal) =>
    withDatabase(args, terminal, async ({ db, outbox }) => {
      const before = await installedRelease(db, outbox);
      await installOutbox(db, outbox);
      const change =
        before === undefined ? 'created' : before === OUTBOX_RELEASE ? 'unchanged' : `upgraded from release ${before}`;
      terminal.out(`The outbox has release ${(await installedRelease(db, outbox))!} (${change}).`);
      return OK;
    }),
};
