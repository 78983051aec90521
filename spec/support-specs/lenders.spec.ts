import { expect } from 'chai';
import type { Knex } from 'knex';
import { existsSync, rmSync } from 'node:fs';
import { databaseUrl, lendDatabase, schemaOf } from '../support/postgres.js';
import { lendRedis, privateRedis, redisUrl, uniqueName } from '../support/redis.js';
import { runProgram } from './programs/run.js';

describe('what the specs borrow', () => {
  let suiteDatabase: Knex;
  before(async () => {
    suiteDatabase = await lendDatabase();
    await suiteDatabase.schema.createTable('things', (table) => table.integer('id'));
  });

  it('is a Redis client of the shared server', async () => {
    const key = uniqueName();
    await lendRedis().set(key, 'v');
    expect(await lendRedis().get(key)).to.equal('v');
  });

  it('is a database with a schema of its own', async () => {
    const database = await lendDatabase();
    await database.schema.createTable('things', (table) => table.integer('id'));
    const { rows } = await database.raw<{ rows: unknown[] }>('select current_schemas(false)::text[] as schemas');
    expect(rows).to.deep.equal([{ schemas: [schemaOf(database)] }]);
  });

  it('is, from a before hook, lent for the whole suite', async () => {
    await Promise.all([1, 2, 3].map((id) => suiteDatabase('things').insert({ id })));
    expect(await suiteDatabase('things').pluck('id')).to.have.members([1, 2, 3]);
  });

  it('is a private server that may be flushed', async () => {
    const server = await privateRedis();
    expect(server.url).to.not.equal(redisUrl());
    await lendRedis({ url: server.url }).flushall();
  });
});

describe('a spec that leaks', () => {
  it('fails, and those after it still run', async () => {
    const { json } = await leaky({ KEEP: '' });
    const failures = Object.fromEntries(json.failures.map(({ title, err }) => [title, err.message]));
    const rule = 'A spec returns everything it opens; this one leaked: ';
    const schema = /schema gencache_[0-9a-f]{12}/;
    expect(failures['leaves a transaction open']).to.match(schema);
    failures['leaves a transaction open'] = failures['leaves a transaction open']!.replace(schema, 'SCHEMA');
    expect(failures).to.deep.equal({
      'leaves a client of its own': `${rule}it left 1 TCP sockets or servers open that it did not borrow from spec/support.`,
      'leaves a transaction open': `${rule}the Knex of SCHEMA: 1 of its connections were still in use.`,
      'leaves a server listening': `${rule}it left 1 TCP sockets or servers open that it did not borrow from spec/support.`,
      fails: 'on purpose',
    });
    expect(json.tests.map(({ title }) => title)).to.include('returns everything');
  });

  it('keeps its data with KEEP=1, and says where', async () => {
    const { json, text } = await leaky({ KEEP: '1' });
    expect(json.failures).to.have.length(4);
    const schemas = [...text.matchAll(/KEEP: schema (gencache_[0-9a-f]{12}) of /g)].map(([, schema]) => schema!);
    const folders = [...text.matchAll(/KEEP: (\/.*\/gencache-redis-[0-9a-f]{12}) has /g)].map(([, folder]) => folder!);
    expect(schemas).to.have.length(1); // of `fails`: the transaction's leak shows only after its schema is gone
    expect(folders).to.have.length(1);
    expect(existsSync(`${folders[0]}/dump.rdb`)).to.equal(true);
    rmSync(folders[0]!, { recursive: true });

    const database = await lendDatabase();
    const { rowCount } = await database.raw<{ rowCount: number }>(
      'select from information_schema.tables where table_schema = ?',
      schemas,
    );
    expect(rowCount).to.equal(1);
    await database.raw(`drop schema ${schemas[0]} cascade`);
  });
});

/** Mocha in a child process, on this run's shared servers. */
async function leaky(env: NodeJS.ProcessEnv) {
  const args = ['--no-config', '--require', 'spec/support/setup.ts', '--exit', '--reporter', 'json'];
  const run = runProgram('node_modules/mocha/bin/mocha.js', [...args, 'spec/support-specs/programs/leaky.ts'], {
    ...env,
    REDIS_URL: redisUrl(),
    DATABASE_URL: databaseUrl(),
  });
  const text = await run.text();
  const json = JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('\n}') + 2)) as {
    tests: { title: string }[];
    failures: { title: string; err: { message: string } }[];
  };
  return { json, text };
}
