import type { Redis } from 'ioredis';
import type { Knex } from 'knex';
import type { Plan } from './measure.js';
import type { Population } from './population.js';
import type { Row } from './row.js';

/** What a measure works with. */
export interface Bench {
  /** A Redis of this run's own, with nothing else on it but what other measures left. */
  readonly redisUrl: string;
  /** A plain client of it, as ioredis comes. */
  readonly redis: Redis;
  /** An empty PostgreSQL of this run's own. */
  readonly db: Knex;
  /** A million live entries on a Redis of their own; made at the first call. */
  readonly million: () => Promise<Population>;
  readonly quick: boolean;
  /** How much to measure, unless a measure needs something of its own. */
  readonly plan: Plan;
}

/** One file of `measures/`: some rows, and nothing left open. */
export type Measure = (bench: Bench) => Promise<readonly Row[]>;
