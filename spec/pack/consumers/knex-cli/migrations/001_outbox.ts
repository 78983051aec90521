import { installOutbox, uninstallOutbox } from 'gencache/knex';
import type { Knex } from 'knex';

export const up = (db: Knex): Promise<void> => installOutbox(db);
export const down = (db: Knex): Promise<void> => uninstallOutbox(db);
