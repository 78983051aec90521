import type { Knex } from 'knex';

/** Writes a warning to the log of the application's Knex (its option `log`; by default stdout), as Knex's own warnings. */
export function warnOwner(db: Knex, message: string): void {
  const { logger } = db.client as { readonly logger?: { warn?(message: string): void } };
  logger?.warn?.(message);
}
