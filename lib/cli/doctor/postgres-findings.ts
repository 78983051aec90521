import type { Knex } from 'knex';
import { broken, type Finding, ok, warn } from './finding.js';

const OLDEST_VERSION = 130_000;

interface Row {
  readonly version: string;
  readonly number: number;
  readonly standby: boolean;
  readonly synchronous: string;
  readonly fsync: string;
  readonly role: string;
}

/** Looks at the server itself. One query. Rejects if it can't be asked. */
export async function lookAtPostgres(db: Knex): Promise<{ readonly findings: Finding[]; readonly role: string }> {
  const { rows } = await db.raw<{ rows: Row[] }>(
    `select current_setting('server_version') as version, current_setting('server_version_num')::int as number,
       pg_is_in_recovery() as standby, current_setting('synchronous_commit') as synchronous,
       current_setting('fsync') as fsync, current_user as role`,
  );
  const { version, number, standby, synchronous, fsync, role } = rows[0]!;
  const findings: Finding[] = [];
  if (standby) {
    findings.push(
      broken(
        'PostgreSQL',
        `${version}, a standby: it may be behind, and nothing can be deleted there`,
        'Pass the primary, here and to every relay.',
      ),
    );
  } else if (number < OLDEST_VERSION) {
    findings.push(broken('PostgreSQL', `${version}; snapshots as used here came with 13`, 'Upgrade it.'));
  } else findings.push(ok('PostgreSQL', `${version}, a primary`));
  const off =
    synchronous === 'off' ? `synchronous_commit is off for ${role}` : fsync === 'off' ? 'fsync is off' : undefined;
  findings.push(
    off === undefined
      ? ok('durability', `synchronous_commit ${synchronous}, fsync ${fsync}`)
      : warn(
          'durability',
          `${off}: a crash forgets commits that readers have seen, with their events`,
          'Nothing, if that is meant: a relay bumps everything after a crash. Until it has, readers without a bound may hit what was lost.',
        ),
  );
  return { findings, role };
}
