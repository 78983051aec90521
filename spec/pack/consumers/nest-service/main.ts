import 'reflect-metadata';
import { Inject, Injectable, Module, type OnApplicationShutdown } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClosedError, GenerationalCache, integer } from 'gencache';
import { type KnexContext, installOutbox, knexSource, uninstallOutbox } from 'gencache/knex';
import { redisStore } from 'gencache/redis';
import { Redis } from 'ioredis';
import { knex, type Knex } from 'knex';
import { strict as assert } from 'node:assert';

const KNEX = Symbol('knex');
const REDIS = Symbol('redis');

/** Provided by its class, as constructor injection finds it. */
@Injectable()
class ShopCache extends GenerationalCache<KnexContext, Knex.Transaction> implements OnApplicationShutdown {
  constructor(@Inject(KNEX) db: Knex, @Inject(REDIS) redis: Redis) {
    super({ name: `nest_${process.pid}`, store: redisStore(redis), source: knexSource(db) });
  }

  async onApplicationShutdown(): Promise<void> {
    await this.close();
  }
}

interface OrderRow {
  readonly customer: number;
  readonly total: number;
}

@Injectable()
class Orders {
  private readonly customers;
  private readonly orders;

  constructor(
    private readonly cache: ShopCache,
    @Inject(KNEX) private readonly db: Knex,
  ) {
    this.customers = cache.namespace('customer', integer());
    this.orders = this.customers.list('orders', {
      load: async (ids, { db }) =>
        db<OrderRow>('nest_order').whereIn(
          'customer',
          ids.map(({ customer }) => Number(customer)),
        ),
      by: ({ customer }) => ({ customer }),
    });
  }

  of(customer: number) {
    return this.orders.fetch({ customer });
  }

  async add(customer: number, total: number): Promise<void> {
    await this.cache.transaction(async (trx) => {
      await trx<OrderRow>('nest_order').insert({ customer, total });
      await this.customers.bump({ customer }, { trx });
    });
  }
}

@Module({
  providers: [
    { provide: KNEX, useFactory: () => knex({ client: 'pg', connection: process.env['DATABASE_URL']! }) },
    { provide: REDIS, useFactory: () => new Redis(process.env['REDIS_URL']!) },
    ShopCache,
    Orders,
  ],
})
class ShopModule {}

async function main(): Promise<void> {
  const app = await NestFactory.createApplicationContext(ShopModule, { logger: ['error', 'warn'] });
  const [db, redis, cache, orders] = [app.get<Knex>(KNEX), app.get<Redis>(REDIS), app.get(ShopCache), app.get(Orders)];
  try {
    await installOutbox(db);
    await db.schema.createTable('nest_order', (table) => {
      table.integer('customer').notNullable();
      table.integer('total').notNullable();
    });
    assert.deepEqual(await orders.of(42), []);
    await cache.settled();
    await orders.of(42);
    assert.equal(cache.statistics.total('hits'), 1);
    await orders.add(42, 7);
    assert.deepEqual(await orders.of(42), [{ customer: 42, total: 7 }]);
    await cache.bump();
    await app.close();
    await assert.rejects(orders.of(42), ClosedError);
    console.log('nest service: ok');
  } finally {
    await db.schema.dropTableIfExists('nest_order');
    await uninstallOutbox(db);
    await db.destroy();
    redis.disconnect();
  }
}

void main();
