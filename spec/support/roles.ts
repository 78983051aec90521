import type { Knex } from 'knex';
import { lend } from './lenders.js';
import { uniqueName } from './redis.js';

/** A role without rights, made by `db`; dropped after the spec, or its suite, with all that it owns. Returns its name. */
export async function lendRole(db: Knex): Promise<string> {
  const role = uniqueName('role');
  await db.raw('create role ??', [role]);
  lend({
    what: `the role ${role}`,
    async close() {
      await db.raw('drop owned by ?? cascade', [role]);
      await db.raw('drop role ??', [role]);
    },
  });
  return role;
}
