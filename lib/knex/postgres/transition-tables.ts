/** The `referencing` clause of a statement-level trigger, by operation. */
export const TRANSITION_TABLES = {
  insert: 'referencing new table as gencache_new',
  update: 'referencing old table as gencache_old new table as gencache_new',
  delete: 'referencing old table as gencache_old',
  truncate: '',
} as const;
