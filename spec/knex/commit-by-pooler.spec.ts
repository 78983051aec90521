/** A pooler between, which answers COMMIT itself when it loses its own connection: what it says is no word of PostgreSQL's. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { expect } from 'chai';
import type { Knex } from 'knex';
import { CommitUnknownError } from '../../lib/knex/index.js';
import { rejection } from '../support/rejection.js';
import { lendKnex } from '../support/knexes.js';
import { lend } from '../support/lenders.js';
import { databaseUrl, schemaOf } from '../support/postgres.js';
import { lendOutbox } from '../support/relay.js';
import { createItems, openShop, recorded } from '../support/shop.js';

/** What PgBouncer up to 1.15 sends then, and closes. */
const CRASHED = errorResponse({ S: 'ERROR', C: '08P01', M: 'server conn crashed?' });

describe('a COMMIT that a pooler answers with an error of its own', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox();
    await createItems(db);
  });

  const price = async () => ((await db('item').where({ id: 1 })) as [{ price: number }])[0].price;

  /** A shop behind a pooler that loses its server once, at COMMIT: when PostgreSQL has answered that, or before it is sent. */
  async function openPooled(loses: 'the answer' | 'the request') {
    const target = new URL(databaseUrl());
    const port = Number(target.port || 5432);
    const sockets = new Set<Socket>();
    let lost = false;
    const pooler = createServer((client) => {
      const server = connect(port, '127.0.0.1');
      let committing = false;
      const crash = () => {
        lost = true;
        client.end(CRASHED);
        server.destroy();
      };
      for (const socket of [client, server]) sockets.add(socket.on('error', () => {}));
      client.on('close', () => server.destroy());
      server.on('close', () => client.end());
      client.on('data', (chunk) => {
        committing = !lost && chunk.includes('COMMIT');
        if (committing && loses === 'the request') crash();
        else server.write(chunk);
      });
      server.on('data', (chunk) => {
        if (committing) crash();
        else client.write(chunk);
      });
    });
    pooler.listen(0, '127.0.0.1');
    await once(pooler, 'listening');
    lend({
      what: 'the pooler',
      close: () => {
        for (const socket of sockets) socket.destroy();
        pooler.close();
      },
    });
    target.host = `127.0.0.1:${(pooler.address() as AddressInfo).port}`;
    const shop = openShop(lendKnex(target.href, schemaOf(db)));
    await shop.warm();
    return { shop, isLost: () => lost };
  }

  for (const strict of [false, true]) {
    const kind = strict ? 'strict' : 'plain';

    it(`resolves after the bump when COMMIT was carried out (${kind})`, async () => {
      const { shop, isLost } = await openPooled('the answer');
      expect(await shop.set(5, { strict })).to.deep.equal({
        ...{ value: 'now 5', bump: 'done' },
        ...(strict ? { strict: 'kept' } : {}),
      });
      expect(isLost()).to.equal(true);
      expect(await price()).to.equal(5);
      expect(await recorded(db)).to.deep.equal([]);
      expect(await shop.outcome()).to.equal('miss');
      expect(await shop.warm()).to.equal(5);
    });

    it(`rejects with the pooler’s error when COMMIT was not carried out (${kind})`, async () => {
      const { shop } = await openPooled('the request');
      const error = await rejection(shop.set(5, { strict }));
      expect(error).not.to.be.instanceOf(CommitUnknownError);
      expect(error).to.include({ code: '08P01', severity: 'ERROR' });
      expect(await price()).to.equal(0);
      expect(await recorded(db)).to.deep.equal([]);
      expect(await shop.outcome()).to.equal(strict ? 'miss' : 'hit'); // an abort is lifted, too
    });
  }
});

/** A message of PostgreSQL's protocol: 'E', its length, then a letter and a text for each field. */
function errorResponse(fields: Readonly<Record<string, string>>): Buffer {
  const body = Object.entries(fields).map(([letter, text]) => `${letter}${text}\0`);
  const bytes = Buffer.from(`${body.join('')}\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(4 + bytes.length, 1);
  return Buffer.concat([head, bytes]);
}
