/** What a library could leave behind in its process: resources that keep the event loop alive, and listeners. */
import type { EventEmitter } from 'node:events';
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import type { Knex } from 'knex';
import { eventually } from '../support/deferred.js';

/** Asserts that this process has no timer, socket or server more than when `watchResources` was called. */
export type NothingLeft = () => Promise<void>;

/** Counts the resources that keep the event loop alive, by kind. */
export function watchResources(): NothingLeft {
  const before = resources();
  return () =>
    eventually(() => {
      const more = [...resources()].filter(([kind, count]) => count > (before.get(kind) ?? 0));
      expect(more, 'resources that are left').to.deep.equal([]);
    });
}

/** Counts the listeners of a client and of a Knex, of its pool too, by event; to be compared with a later count. */
export function countListeners(client: Redis, db: Knex): Record<string, Record<string, number>> {
  const { client: knexClient } = db as unknown as { client: EventEmitter & { pool: { emitter: EventEmitter } } };
  return {
    redis: listenersOf(client),
    knex: listenersOf(db as unknown as EventEmitter),
    client: listenersOf(knexClient),
    pool: listenersOf(knexClient.pool.emitter),
  };
}

function listenersOf(emitter: EventEmitter): Record<string, number> {
  return Object.fromEntries(emitter.eventNames().map((name) => [String(name), emitter.listenerCount(name)]));
}

function resources(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const kind of process.getActiveResourcesInfo()) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}
