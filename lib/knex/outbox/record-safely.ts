import { literal } from '../postgres/sql-text.js';

/**
 * PL/pgSQL that runs `record`, statements which insert events, so that the write of the user does not fail where row level
 * security is forced upon the owner of the outbox. The event is lost then, with a warning, and no relay guarantees a bound
 * (`row-security.ts`). Elsewhere the statements run without a block of their own, which would take a subtransaction id.
 * `at`: the prefix of the outbox's tables, with the schema.
 */
export function recordSafely(at: string, record: string): string {
  const outbox = `${at}gencache_outbox`;
  return `if ${rowSecurityActive(at)} then
    begin
    ${record}
    exception when insufficient_privilege then
      raise warning using message = 'gencache records no changes: ' operator(pg_catalog.||) sqlerrm,
        hint = ${literal(`alter table ${outbox} no force row level security`)};
    end;
  else
    ${record}
  end if;`;
}

/** SQL for whether row level security applies to the owner of the outbox. */
export function rowSecurityActive(at: string): string {
  return `pg_catalog.row_security_active(${literal(`${at}gencache_outbox`)}::pg_catalog.regclass)`;
}
