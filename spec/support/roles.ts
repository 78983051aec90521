import type { Knex } from 'knex';
import { lend } from './lenders.js';
import { schemaOf } from './postgres.js';
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

/** As `lendRole`, with all rights on the tables that the schema of `db` has now. */
export async function lendRoleOfTables(db: Knex): Promise<string> {
  const role = await lendRole(db);
  await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
  await db.raw('grant all on all tables in schema ?? to ??', [schemaOf(db), role]);
  return role;
}

/** Grants rights on tables, by the name of the table. */
export async function grantRights(
  db: Knex,
  role: string,
  all: Readonly<Record<string, readonly string[]>>,
): Promise<void> {
  for (const [table, rights] of Object.entries(all)) await db.raw(`grant ${rights.join(', ')} on ${table} to ${role}`);
}
