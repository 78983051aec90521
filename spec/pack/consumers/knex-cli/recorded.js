/** What the migrations left: the trigger's event and the narrowed one, and the bump of the migration before. */
const assert = require('node:assert/strict');
const { knex } = require('knex');

async function main() {
  const db = knex({ client: 'pg', connection: process.env.DATABASE_URL });
  try {
    const paths = await db('gencache_outbox').where({ cache: 'knex-cli' }).pluck('path');
    assert.ok(paths.includes('customer=42'), `An event of the customer, got ${JSON.stringify(paths)}`);
    await db('knex_cli_customer').insert({ id: 43 });
    const events = await db('gencache_outbox').where({ cache: 'knex-cli', path: 'customer=43' });
    assert.equal(events.length, 1);
    console.log('knex under ts-node: ok');
  } finally {
    await db.destroy();
  }
}

void main();
