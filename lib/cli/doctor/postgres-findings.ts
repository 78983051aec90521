import type { Knex } from 'knex';
import { broken, type Finding, ok, warn } from './finding.js';
import { query } from '../../knex/postgres/query.js';

const OLDEST_VERSION = 130_000;

interface ServerRow {
  readonly version: string;
  readonly number: number;
  readonly standby: boolean;
  readonly synchronous: string;
  readonly fsync: string;
  readonly role: string;
}

/** Checks the server itself. One query. Rejects if the server is unreachable. */
export async function checkPostgres(db: Knex): Promise<{
  readonly findings: Finding[];
  readonly role: string;
  readonly isStandby: boolean;
}> {
  const rows = await query<ServerRow>(
    db,
    `select current_setting('server_version') as version, current_setting('server_version_num')::int as number,
       pg_is_in_recovery() as standby, current_setting('synchronous_commit') as synchronous,
       current_setting('fsync') as fsync, current_user as role`,
  );
  const row = rows[0]!;
  return { findings: [serverFinding(row), durabilityFinding(row)], role: row.role, isStandby: row.standby };
}

function serverFinding({ version, number, standby }: ServerRow): Finding {
  if (standby) {
    return broken(
      'PostgreSQL',
      `${version}, a standby: it may lag behind, and rejects writes`,
      'Pass the primary, here and to every relay.',
    );
  }
  if (number < OLDEST_VERSION) return broken('PostgreSQL', `${version} is older than 13`, 'Upgrade PostgreSQL.');
  return ok('PostgreSQL', `${version}, a primary`);
}

function durabilityFinding({ synchronous, fsync, role }: ServerRow): Finding {
  const off =
    synchronous === 'off' ? `synchronous_commit is off for ${role}` : fsync === 'off' ? 'fsync is off' : undefined;
  if (off === undefined) return ok('durability', `synchronous_commit ${synchronous}, fsync ${fsync}`);
  return warn(
    'durability',
    `${off}: a crash loses commits that readers have seen, and their events`,
    'Switch it on, or accept this: a relay bumps everything after a crash. Until then a reader without `maxStalenessMs` may ' +
      'hit a value that the crash lost.',
  );
}
