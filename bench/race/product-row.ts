import type { Knex } from 'knex';
import { type Deferred, deferred } from '../../spec/support/deferred.js';

export interface ProductRow {
  readonly id: number;
  readonly price: number;
}

export const PRODUCT_ID = 1;
export const OLD_PRICE = 10;
export const NEW_PRICE = 20;

/** A row of a real table, whose next load can be held between its query and its answer. */
export class Product {
  /** How many loads have begun. */
  loads = 0;
  readonly #db: Knex;
  #hold: { readonly hasRead: Deferred<void>; readonly release: Deferred<void> } | undefined;

  private constructor(db: Knex) {
    this.#db = db;
  }

  static async create(db: Knex): Promise<Product> {
    await db.schema.createTable('product', (table) => {
      table.integer('id').primary();
      table.integer('price').notNullable();
    });
    await db('product').insert({ id: PRODUCT_ID, price: OLD_PRICE });
    return new Product(db);
  }

  /** Commits a price: the statement is a transaction of its own. */
  async setPrice(price: number): Promise<void> {
    await this.#db('product').where({ id: PRODUCT_ID }).update({ price });
  }

  /** Makes the next load wait after its query, until `release` resolves. */
  holdNextLoad(): { readonly hasRead: Promise<void>; readonly release: () => void } {
    const hold = { hasRead: deferred(), release: deferred() };
    this.#hold = hold;
    return { hasRead: hold.hasRead.promise, release: () => hold.release.resolve() };
  }

  readonly load = async (): Promise<ProductRow> => {
    this.loads++;
    const hold = this.#hold;
    this.#hold = undefined;
    const row = (await this.#db('product').where({ id: PRODUCT_ID }).first('id', 'price')) as ProductRow;
    if (hold !== undefined) {
      hold.hasRead.resolve();
      await hold.release.promise;
    }
    return row;
  };
}
