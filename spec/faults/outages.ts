import { setTimeout as sleep } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import { eventually } from '../support/deferred.js';
import { Eviction } from './eviction.js';
import type { Proxy } from '../support/proxy.js';
import type { RedisServer } from '../support/servers/redis-server.js';

/** A Redis of an outage's own. */
export interface OutageTarget {
  readonly server: RedisServer;
  /** The way of caches and relays to it. */
  readonly proxy: Proxy;
  /** Connected to the server itself. */
  readonly admin: Redis;
}

/** A full Redis takes bumps, and no quarantine (docs/operations.md, eviction). */
export type Refused = 'no writes' | 'quarantines' | 'writes';

/** An outage of Redis, made and ended; `during` goes on in between. */
export interface Outage {
  /** Arguments of redis-server. */
  readonly args?: readonly string[];
  make(target: OutageTarget): Promise<unknown> | void;
  during?(target: OutageTarget): Promise<unknown>;
  end?(target: OutageTarget): Promise<unknown> | void;
  /** The writes that Redis refuses meanwhile; any other that fails is an error. */
  readonly refuses: Refused;
  /** Whether it has been made in all of its ways; by default a second is enough. */
  readonly isOver?: () => boolean;
}

const EVICTION = new Eviction();

export const OUTAGES: Readonly<Record<string, Outage>> = {
  'refuses connections': {
    refuses: 'writes',
    make: ({ server }) => server.kill('SIGKILL'),
    end: ({ server }) => server.restart(),
  },
  'is stopped': {
    refuses: 'writes',
    make: ({ server }) => server.pause(),
    end: ({ server }) => server.resume(),
  },
  'is slow by 10 ms': {
    refuses: 'no writes',
    make: ({ proxy }) => void (proxy.delayMs = 10),
    end: ({ proxy }) => void (proxy.delayMs = 0),
  },
  'is slow by 300 ms': {
    refuses: 'no writes',
    make: ({ proxy }) => void (proxy.delayMs = 300),
    end: ({ proxy }) => void (proxy.delayMs = 0),
  },
  'is slow by 3,000 ms': {
    refuses: 'writes',
    make: ({ proxy }) => void (proxy.delayMs = 3_000),
    end({ proxy }) {
      proxy.delayMs = 0;
      proxy.cut();
    },
  },
  'flaps every 200 ms': {
    refuses: 'writes',
    make() {},
    async during({ proxy }) {
      proxy.refuse();
      proxy.cut();
      await sleep(200);
      await proxy.accept();
      await sleep(200);
    },
  },
  'has no room': {
    refuses: 'quarantines',
    async make({ admin }) {
      await admin.config('SET', 'maxmemory-policy', 'noeviction');
      await admin.config('SET', 'maxmemory', '1');
    },
    end: ({ admin }) => admin.config('SET', 'maxmemory', '0'),
  },
  'evicts by each policy in turn': {
    refuses: 'quarantines',
    isOver: () => EVICTION.isOver,
    make: (target) => EVICTION.begin(target),
    during: (target) => EVICTION.go(target),
    end: (target) => EVICTION.end(target),
  },
  'loads its data': {
    args: [
      '--key-load-delay',
      '500',
      '--loading-process-events-interval-bytes',
      '1024',
      '--enable-debug-command',
      'yes',
    ],
    refuses: 'writes',
    async make({ server, proxy, admin }) {
      await admin.call('DEBUG', 'POPULATE', '3000', 'filler', '100');
      // No bump between the snapshot and the end is confirmed: a server that forgets one is another fault.
      proxy.hold();
      await admin.call('SAVE');
      await server.kill('SIGKILL');
      proxy.cut();
      proxy.release();
      void server.restart().catch(() => {});
    },
    end: ({ admin }) => eventually(() => admin.ping()),
  },
  'is a replica': {
    refuses: 'writes',
    make: ({ admin }) => admin.replicaof('127.0.0.1', 1),
    end: ({ admin }) => admin.replicaof('NO', 'ONE'),
  },
  'forgets its scripts': {
    refuses: 'no writes',
    make() {},
    async during({ admin }) {
      await admin.script('FLUSH');
      await sleep(5);
    },
  },
  'loses its connections in the middle of replies': {
    refuses: 'writes',
    make() {},
    during: ({ proxy }) => Promise.race([proxy.dropReplies(), sleep(50)]),
  },
};
