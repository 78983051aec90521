/** What a library could leave behind in its process: resources that keep the event loop alive, and listeners. */
import type { EventEmitter } from 'node:events';
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import type { Knex } from 'knex';
import { eventually } from '../support/deferred.js';

/** Asserts that nothing was left behind since it was made; waits for sockets to close. */
export type NothingLeft = () => Promise<void>;

/** Watches what keeps the event loop alive: timers, sockets, servers. */
export function watchResources(): NothingLeft {
  const before = resources();
  return () =>
    eventually(() => {
      const more = [...resources()].filter(([kind, count]) => count > (before.get(kind) ?? 0));
      expect(more, 'resources that are left').to.deep.equal([]);
    });
}

/** Watches the listeners of a client, a Knex and its pool, and the connections that are opened beside the client. */
export function watchListeners(client: Redis, db: Knex): NothingLeft {
  const opened: Redis[] = [];
  const duplicate = client.duplicate.bind(client);
  client.duplicate = (override) => {
    const connection = duplicate(override);
    opened.push(connection);
    return connection;
  };
  const before = countListeners(client, db);
  return () =>
    eventually(() => {
      expect(countListeners(client, db), 'listeners').to.deep.equal(before);
      expect([...new Set(opened.map(({ status }) => status))], 'states of connections').to.deep.equal(['end']);
    });
}

function countListeners(client: Redis, db: Knex): Record<string, Record<string, number>> {
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
