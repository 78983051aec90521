import type { Knex } from 'knex';

/** Calls back in the moment before a query that this text is part of is sent; once. */
export function before(db: Knex, text: string, act: () => void): void {
  const listener = ({ sql }: { sql: string }) => {
    if (!sql.includes(text)) return;
    db.removeListener('query', listener);
    act();
  };
  db.on('query', listener);
}

/** The queries that a piece of work sends by this Knex, shortened to what tells them apart. */
export async function recordQueries(db: Knex, work: () => Promise<unknown>): Promise<string[]> {
  const queries: string[] = [];
  const listener = ({ sql }: { sql: string }) => void queries.push(sql.replace(/\s+/g, ' ').trim());
  db.on('query', listener);
  try {
    await work();
  } finally {
    db.removeListener('query', listener);
  }
  return queries.map((sql) => sql.slice(0, 24));
}
