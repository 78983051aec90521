import { PGlite } from '@electric-sql/pglite';
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';
import knex, { type Knex } from 'knex';

export interface DemoPostgres {
  readonly kind: 'embedded' | 'external';
  /** Its name in the output. */
  readonly where: string;
  /** The Knex of the loaders: its `query` events are theirs alone. */
  readonly reads: Knex;
  /** The same connections, for edits and the relay. */
  readonly edits: Knex;
  /** Drops the schema, ends the connections, and stops an embedded server. */
  close(): Promise<void>;
}

/** Opens the database of `url`, or an embedded one, with a new schema. */
export async function openPostgres(url: string | undefined, schema: string): Promise<DemoPostgres> {
  if (url !== undefined) {
    const connected = await connect(url, schema, 4);
    return { kind: 'external', where: 'the PostgreSQL of DATABASE_URL', ...connected };
  }
  const pglite = await PGlite.create();
  const server = new PGLiteSocketServer({ db: pglite, port: 0 });
  await server.start();
  // PGlite is one session, and its socket server accepts one connection: all callers share it.
  const connected = await connect(`postgres://postgres@${server.getServerConn()}/postgres`, schema, 1);
  return {
    kind: 'embedded',
    where: 'PGlite, embedded, behind its socket server',
    ...connected,
    async close() {
      await connected.close();
      await server.stop();
      await pglite.close();
    },
  };
}

async function connect(
  url: string,
  schema: string,
  connectionsMax: number,
): Promise<Pick<DemoPostgres, 'reads' | 'edits' | 'close'>> {
  const reads = knex({ client: 'pg', connection: url, searchPath: [schema], pool: { min: 0, max: connectionsMax } });
  try {
    const edits = reads.withUserParams({});
    await edits.schema.createSchema(schema);
    return {
      reads,
      edits,
      async close() {
        try {
          await edits.raw('drop schema ?? cascade', [schema]);
        } finally {
          await reads.destroy();
        }
      },
    };
  } catch (error) {
    await reads.destroy();
    throw error;
  }
}
