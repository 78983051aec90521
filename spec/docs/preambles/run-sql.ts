/** Runs a block of SQL, as psql would: statement by statement, in one session. */
import pg from 'pg';

export async function runSql(text: string): Promise<void> {
  const client = new pg.Client({ connectionString: process.env['DATABASE_URL']! });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}
