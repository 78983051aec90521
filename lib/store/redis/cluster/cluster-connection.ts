/**
 * The store's own connections to the primaries of a Redis Cluster: one for each node that owns a slot in use.
 *
 *     slot -> (slot map) -> node -> MOVED -> the other node, and a new slot map
 *                                -> CLUSTERDOWN, connection lost -> a new slot map
 *                                -> ASK, TRYAGAIN: the slot is being moved (SlotRoute)
 *
 * The slot map is a hint, read from any node when it is first needed, and again whenever a node redirects, refuses or is
 * lost. A wrong map costs a redirection and never a wrong answer: a node executes a command only if it believes that it
 * owns the slot, and only as a primary.
 *
 * ioredis' own Cluster client is not used. It sends a command again when its connection broke, which may execute it
 * twice (docs/protocol.md, rule 8); it takes a new connection for usable before the server has told its incarnation
 * (docs/protocol.md, rule 10); and it may read from replicas.
 */
import { clearTimeout, monotonicMs, setTimeout } from '../../../async/scheduling.js';
import type { Deadline } from '../../../async/deadline.js';
import { inNoContext } from '../../../async/no-context.js';
import { type StoreListener, StoreUnavailableError } from '../../../ports/store.js';
import { ignoreLaterErrors } from '../later-errors.js';
import { RedisConnection, type ServerAddress } from '../redis-connection.js';
import { tlsRemedy } from '../tls-remedy.js';
import { TrackingConnection } from '../tracking/tracking-connection.js';
import type { ClusterClient } from './cluster-client.js';
import type { NodeAddress } from './redirection.js';
import { ownerOf, readSlotMap, type SlotMap } from './slot-map.js';
import { type ClusterNodes, SlotRoute } from './slot-route.js';

/** Longest time for one node to tell its slot map, in ms. */
const MAP_WITHIN_MS = 1_000;
/** Time after which the next node is asked for the slot map as well, in ms. */
const NEXT_AFTER_MS = 100;
/** Most nodes that are asked for one slot map. */
const ASKED_MAX = 8;
/** Shortest time between two slot maps, in ms. */
const MAP_EVERY_MS = 100;
/** Time for which the connection to a node that owns no slot in use stays open, for commands under way, in ms. */
const UNUSED_MS = 5_000;

export class ClusterConnection implements ClusterNodes {
  readonly #client: ClusterClient;
  readonly #routes = new Map<number, SlotRoute>();
  /** By the key of the address. */
  readonly #nodes = new Map<string, RedisConnection>();
  /** Beside the connection to the same node; open if a partition there is tracked. */
  readonly #tracking = new Map<RedisConnection, TrackingConnection>();
  /** Called at each change of a connection or a route. */
  #waiting = new Set<() => void>();
  #map: SlotMap | undefined;
  #mapping = false;
  #mappedAtMs = -Infinity;
  #mapTimer: NodeJS.Timeout | undefined;
  #sweepTimer: NodeJS.Timeout | undefined;
  /** Why the last attempt to read the slot map failed. */
  #mapError: Error | undefined;
  #listener: StoreListener | undefined;
  /** Whether the listener was told last that each node in use can be reached. */
  #isUp = false;
  readonly #warned = new Set<string>();
  #closed = false;

  constructor(client: ClusterClient) {
    this.#client = client;
    this.refresh();
  }

  listen(listener: StoreListener): void {
    this.#listener = listener;
  }

  /** The way to the primary that owns a slot. */
  route(slot: number): SlotRoute {
    let route = this.#routes.get(slot);
    if (route === undefined) {
      this.#routes.set(slot, (route = new SlotRoute(slot, this)));
      const owner = this.#map && ownerOf(this.#map, slot);
      if (owner !== undefined) route.lead(this.node(owner));
    }
    return route;
  }

  /** Returns the connection to a node, or makes one. */
  node(address: NodeAddress): RedisConnection {
    const { key, address: server } = this.#client.reach(address);
    const known = this.#nodes.get(key);
    if (known !== undefined) return known;
    const node = new RedisConnection(server);
    this.#nodes.set(key, node);
    this.#tracking.set(node, new TrackingConnection(server));
    node.listen((signal) => {
      const wasUp = this.#isUp;
      this.changed();
      if (signal.kind === 'warning') {
        if (this.#warned.has(signal.message)) return;
        this.#warned.add(signal.message);
        this.#listener?.(signal);
        return;
      }
      if (!this.#used.has(node)) return;
      if (signal.kind === 'down') {
        this.refresh();
        this.#tellDown(signal.error);
      } else if (this.#isUp === wasUp) this.#listener?.({ kind: 'server_up' });
    });
    // A call that outlives the cache, or its registry's answer, may meet another node: no connection would end this one.
    if (this.#closed) node.close();
    return node;
  }

  /** Addresses of the nodes in use that can't be reached. */
  get unreachable(): string[] {
    const used = this.#used;
    return [...this.#nodes].filter(([, node]) => node.isDown && used.has(node)).map(([key]) => key);
  }

  /** The nodes that own a slot in use. */
  get #used(): ReadonlySet<RedisConnection | undefined> {
    return new Set([...this.#routes.values()].map(({ server }) => server));
  }

  /** Whether each slot in use has a node that can be asked. */
  get #isWhole(): boolean {
    const used = [...this.#used];
    return used.length > 0 && used.every((node) => node?.isReady);
  }

  #tellDown(error: Error): void {
    this.#isUp = false;
    this.#listener?.({ kind: 'down', error });
  }

  trackingConnection(node: RedisConnection): TrackingConnection {
    return this.#tracking.get(node)!;
  }

  /** Host of the node that a connection leads to. */
  hostOf(node: RedisConnection): string {
    for (const [key, known] of this.#nodes) if (known === node) return key.slice(0, key.lastIndexOf(':'));
    return '127.0.0.1';
  }

  /** The error of a call that no slot map can lead to a node; undefined while one may still come. */
  get unmapped(): StoreUnavailableError | undefined {
    if (this.#mapError === undefined) return undefined;
    return new StoreUnavailableError(this.#mapError.message, false, { cause: this.#mapError });
  }

  /** Wakes the calls that wait for a change. */
  changed(): void {
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const wake of waiting) wake();
    if (this.#isUp || !this.#isWhole) return;
    this.#isUp = true;
    this.#listener?.({ kind: 'up' });
  }

  /** Resolves at the next change of a connection or a route. Rejects with what `late` returns at the deadline. */
  change(deadline: Deadline, late: (within: string) => StoreUnavailableError): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.add(resolve);
      deadline.onExpiry(({ limitMs }) => {
        this.#waiting.delete(resolve);
        reject(late(` within ${limitMs} ms`));
      });
    });
  }

  /** Reads the slot map anew, soon, at a limited rate; and again until each slot in use has a node that is not down. */
  refresh(): void {
    if (this.#closed || this.#mapping || this.#mapTimer !== undefined) return;
    const waitMs = this.#mappedAtMs + MAP_EVERY_MS - monotonicMs();
    if (waitMs > 0) this.#refreshIn(waitMs);
    else void inNoContext(() => this.#refresh());
  }

  #refreshIn(ms: number): void {
    this.#mapTimer ??= inNoContext(() =>
      setTimeout(() => {
        this.#mapTimer = undefined;
        void this.#refresh();
      }, ms),
    );
  }

  async #refresh(): Promise<void> {
    this.#mapping = true;
    try {
      const map = await this.#readMap();
      if (this.#closed) return;
      this.#mapError = undefined;
      this.#map = map;
      for (const route of this.#routes.values()) {
        const owner = ownerOf(map, route.slot);
        if (owner !== undefined) route.lead(this.node(owner));
      }
      this.#sweepLater();
    } catch (error) {
      if (this.#closed) return;
      this.#mapError = error as Error;
      if (!this.#isWhole) this.#tellDown(error as Error);
    } finally {
      this.#mapping = false;
      this.#mappedAtMs = monotonicMs();
    }
    this.changed();
    const lost = [...this.#used].some((node) => node === undefined || node.isDown);
    if (lost || this.#map === undefined) this.#refreshIn(2 * MAP_EVERY_MS * (0.5 + Math.random()));
  }

  /** Asks one node after the other, and takes the first map of a node that is not cut off; else the first map. */
  #readMap(): Promise<SlotMap> {
    const candidates = this.#candidates();
    return new Promise((resolve, reject) => {
      let fallback: SlotMap | undefined;
      let failure: unknown;
      let asked = 0;
      let waiting = 0;
      let next: NodeJS.Timeout | undefined;
      const settle = (map: SlotMap | undefined) => {
        clearTimeout(next);
        if (map !== undefined) resolve(map);
        else reject(unreachable(failure as Error, this.#client.usesTls));
      };
      const ask = (): void => {
        clearTimeout(next);
        const address = candidates[asked++];
        if (address === undefined) {
          if (waiting === 0) settle(fallback);
          return;
        }
        waiting++;
        next = setTimeout(ask, NEXT_AFTER_MS);
        mapOf(address).then(
          (map) => {
            waiting--;
            if (map.isOk && map.ranges.length > 0) settle(map);
            else {
              if (map.ranges.length > 0) fallback ??= map;
              failure ??= new Error('the cluster does not serve.');
              ask();
            }
          },
          (error: unknown) => {
            waiting--;
            failure ??= error;
            ask();
          },
        );
      };
      ask();
    });
  }

  /** Nodes to ask for the map, in random order: those of the last map, and those that the owner named. */
  #candidates(): ServerAddress[] {
    const known = new Map<string, ServerAddress>();
    for (const node of this.#map?.nodes ?? []) {
      const { key, address } = this.#client.reach(node);
      // A node that is down is not asked first; another one of the cluster knows more.
      if (this.#nodes.get(key)?.isDown !== true) known.set(key, address);
    }
    const shuffled = shuffle([...known.values()]).slice(0, ASKED_MAX);
    return [...shuffled, ...shuffle(this.#client.startupNodes).slice(0, ASKED_MAX)];
  }

  #sweepLater(): void {
    this.#sweepTimer ??= inNoContext(() =>
      setTimeout(() => {
        this.#sweepTimer = undefined;
        const used = this.#used;
        for (const [key, node] of this.#nodes) {
          if (used.has(node)) continue;
          this.#nodes.delete(key);
          this.#tracking.delete(node);
          node.close();
        }
      }, UNUSED_MS).unref(),
    );
  }

  close(): void {
    this.#closed = true;
    this.#listener = undefined;
    clearTimeout(this.#mapTimer);
    clearTimeout(this.#sweepTimer);
    for (const node of this.#nodes.values()) node.close();
    for (const tracking of this.#tracking.values()) tracking.close();
  }
}

/** Asks a node for its slot map, on a connection of its own. */
async function mapOf(address: ServerAddress): Promise<SlotMap> {
  const client = address.connect({
    ...{ lazyConnect: true, enableReadyCheck: false, enableOfflineQueue: false, enableAutoPipelining: false },
    ...{ autoResendUnfulfilledCommands: false, maxRetriesPerRequest: 0, retryStrategy: () => null },
    ...{ connectTimeout: MAP_WITHIN_MS, commandTimeout: MAP_WITHIN_MS, disconnectTimeout: 100 },
  });
  let cause: Error | undefined;
  client.on('error', (error: Error) => {
    ignoreLaterErrors(client);
    cause = error;
  });
  try {
    await client.connect();
    return await readSlotMap(client, String(address.options.host));
  } catch (error) {
    throw cause ?? error;
  } finally {
    ignoreLaterErrors(client);
    client.disconnect();
  }
}

const IS_NO_CLUSTER =
  'The server is no node of a Redis Cluster: pass `new Redis(url)` of ioredis, or begin the address of a command with redis://.';

function unreachable(cause: Error, usesTls: boolean): StoreUnavailableError {
  const remedy =
    (usesTls && tlsRemedy(cause)) ||
    (/cluster support disabled|unknown command .cluster/i.test(cause.message) && IS_NO_CLUSTER) ||
    "Check the nodes' addresses and the network.";
  return new StoreUnavailableError(
    `No node of the Redis Cluster told its slots: ${cause.message.replace(/\.$/, '')}. ${remedy}`,
    false,
    { cause },
  );
}

function shuffle<T>(items: T[]): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
  return items;
}
