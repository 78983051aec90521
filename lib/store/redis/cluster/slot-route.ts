import { setImmediate, setTimeout } from '../../../async/scheduling.js';
import type { Deadline } from '../../../async/deadline.js';
import { StoreUnavailableError } from '../../../ports/store.js';
import { askingClient } from '../commands/scripts.js';
import type { PushSource } from '../tracking/partition-tracker.js';
import type { TrackingConnection } from '../tracking/tracking-connection.js';
import type { ApartCommand, RedisConnection, Route, SentCommand } from '../redis-connection.js';
import { type NodeAddress, redirectionOf } from './redirection.js';

/** Most redirections of one command: two nodes that disagree would send it to and fro. */
const REDIRECTIONS_MAX = 5;
/** Pause before a command is sent again to a node that does not serve its slot, in ms. */
const PAUSE_MS = 50;

/**
 * The way to the primary that owns one slot.
 *
 * **Invariant.** Every command is executed at most once. A redirection (MOVED, ASK, TRYAGAIN, CLUSTERDOWN) says that the
 * node executed nothing, so the command may be sent once more; a command whose connection broke is never sent again.
 *
 * A slot that is being moved has its keys on two nodes, and no node executes a command of several keys there unless it
 * has all of them (docs/protocol.md, rule 19a). So `send` and `sendUnlessDown` reject in such a slot with MovingSlotError,
 * which says that nothing was executed: a look-up bypasses, a fill is refused. `sendApart` sends a command for each key
 * alone and follows ASK.
 */
export class SlotRoute implements Route, PushSource {
  readonly slot: number;
  readonly #cluster: ClusterNodes;
  #node: RedisConnection | undefined;
  #moved: (() => void) | undefined;

  constructor(slot: number, cluster: ClusterNodes) {
    this.slot = slot;
    this.#cluster = cluster;
  }

  /** Takes another node for the slot's owner. */
  lead(node: RedisConnection): void {
    if (node === this.#node) return;
    this.#node = node;
    this.#moved?.();
    this.#cluster.changed();
  }

  /** The connection to the slot's owner; undefined before the first slot map. */
  get server(): RedisConnection | undefined {
    return this.#node;
  }

  /** The tracking connection to the slot's owner; undefined before the first slot map. */
  trackingConnection(): TrackingConnection | undefined {
    return this.#node && this.#cluster.trackingConnection(this.#node);
  }

  onMove(listener: () => void): void {
    this.#moved = listener;
  }

  get incarnation(): string | undefined {
    return this.#node?.incarnation;
  }

  revalidate(): void {
    this.#node?.revalidate();
  }

  send<T>(deadline: Deadline, command: SentCommand<T>): Promise<T> {
    return this.#send({ deadline, command, waitsForServer: true, redirections: 0 });
  }

  sendUnlessDown<T>(deadline: Deadline, command: SentCommand<T>): Promise<T> {
    return this.#send({ deadline, command, waitsForServer: false, redirections: 0 });
  }

  async sendApart<T>(deadline: Deadline, keys: readonly string[], one: (key: string) => ApartCommand<T>): Promise<T[]> {
    const replies: T[] = [];
    for (let start = 0; start < keys.length; start += APART_AT_ONCE) {
      const chunk = keys.slice(start, start + APART_AT_ONCE);
      replies.push(...(await Promise.all(chunk.map((key) => this.#sendAlone(deadline, one(key))))));
    }
    return replies;
  }

  #send<T>(sending: Sending<T>): Promise<T> {
    const node = this.#node;
    if (node === undefined || !node.isReady) return this.#wait(sending);
    // A bump of everything is a command for each partition, and all of them may lie on one primary.
    if (sending.waitsForServer && !node.hasRoom) return node.answer(sending.deadline).then(() => this.#send(sending));
    node.gather();
    return node.send(sending.deadline, sending.command).catch((error: unknown) => this.#failed(sending, node, error));
  }

  /** Waits for a node that can be asked. Unless the command waits for servers, rejects while its node is down. */
  async #wait<T>(sending: Sending<T>): Promise<T> {
    const node = this.#node;
    if (node === undefined || node.isDown) {
      this.#cluster.refresh();
      const error = node === undefined ? this.#cluster.unmapped : node.unreachable();
      if (error !== undefined && !sending.waitsForServer) {
        // In a later turn, so that a caller that tries again without a pause does not stop the event loop.
        await new Promise(setImmediate);
        throw error;
      }
    }
    await this.#cluster.change(
      sending.deadline,
      (within) => this.#node?.late(within) ?? this.#cluster.unmapped ?? unmappedWithin(within),
    );
    return this.#send(sending);
  }

  async #failed<T>(sending: Sending<T>, node: RedisConnection, error: unknown): Promise<T> {
    const redirection = redirectionOf(error);
    if (redirection === undefined) {
      if (node.isDown) this.#cluster.refresh();
      throw error;
    }
    if (redirection.kind === 'ask' || redirection.kind === 'try_again') throw new MovingSlotError(error);
    this.#cluster.refresh();
    if (sending.redirections === REDIRECTIONS_MAX) throw tooManyRedirections(error);
    if (redirection.kind === 'moved') {
      await this.#follow(node, redirection.to);
      return this.#send({ ...sending, redirections: sending.redirections + 1 });
    }
    if (!sending.waitsForServer) throw notExecuted(error);
    await this.#pause(sending.deadline, error);
    return this.#send(sending);
  }

  /** Takes the node that a MOVED names for the owner. */
  async #follow(node: RedisConnection, to: NodeAddress): Promise<void> {
    // Replies that arrived with this one belong to the server of before: their callers read its incarnation first.
    await new Promise(setImmediate);
    this.lead(this.#cluster.node(this.#told(node, to)));
  }

  #told(node: RedisConnection, { host, port }: NodeAddress): NodeAddress {
    return { host: host === '' ? this.#cluster.hostOf(node) : host, port };
  }

  /** Sends a command of one key, also to the node to which the key has moved ahead of its slot. */
  async #sendAlone<T>(deadline: Deadline, command: ApartCommand<T>): Promise<T> {
    for (let redirections = 0; ; redirections++) {
      let asked: NodeAddress;
      let source: RedisConnection | undefined;
      try {
        return await this.#send({
          ...{ deadline, waitsForServer: true, redirections: 0 },
          command: (client) => {
            source = this.#node;
            return command(client);
          },
        });
      } catch (error) {
        const redirection = error instanceof MovingSlotError ? redirectionOf(error.redirection) : undefined;
        if (redirection === undefined) throw error;
        if (redirections === REDIRECTIONS_MAX) throw tooManyRedirections(error);
        if (redirection.kind !== 'ask') {
          await this.#pause(deadline, error);
          continue;
        }
        asked = this.#told(source!, redirection.to);
      }
      const target = this.#cluster.node(asked);
      if (!target.isReady) {
        // ASKING needs an ASK just received: by the time that the connection is open, the slot may be elsewhere.
        await this.#cluster.change(deadline, (within) => target.late(within));
        redirections--;
        continue;
      }
      try {
        return await target.send(deadline, (client) => command(askingClient(client)));
      } catch (error) {
        // The target says that the slot is not on its way to it any more, and executed nothing.
        if (redirectionOf(error) === undefined) throw error;
        if (redirections === REDIRECTIONS_MAX) throw tooManyRedirections(error);
        await this.#pause(deadline, error);
      }
    }
  }

  /** Resolves after a pause. Rejects with `cause` at the deadline. */
  #pause(deadline: Deadline, cause: unknown): Promise<void> {
    return new Promise((resolve, reject) => {
      setTimeout(resolve, PAUSE_MS * (0.5 + Math.random()));
      deadline.onExpiry(() => reject(notExecuted(cause)));
    });
  }
}

/** Keys that are sent one by one, at once: the connection carries two commands for each, and takes a thousand. */
const APART_AT_ONCE = 100;

/** The nodes of a cluster, as their routes need them. */
export interface ClusterNodes {
  /** Returns the connection to a node, or makes one. */
  node(address: NodeAddress): RedisConnection;
  /** The tracking connection to the node that a connection leads to. */
  trackingConnection(node: RedisConnection): TrackingConnection;
  /** The host of the node that a connection leads to. */
  hostOf(node: RedisConnection): string;
  /** The error of a call that no slot map can lead to a node; undefined while one may still come. */
  readonly unmapped: StoreUnavailableError | undefined;
  /** Wakes the calls that wait for a change. */
  changed(): void;
  /** Resolves at the next change of a connection or a route. Rejects with what `late` returns at the deadline. */
  change(deadline: Deadline, late: (within: string) => StoreUnavailableError): Promise<void>;
  /** Reads the slot map anew, soon. */
  refresh(): void;
}

interface Sending<T> {
  readonly deadline: Deadline;
  readonly command: SentCommand<T>;
  readonly waitsForServer: boolean;
  readonly redirections: number;
}

/** The keys' slot is being moved between two nodes, and neither has all keys. Nothing was executed. */
export class MovingSlotError extends StoreUnavailableError {
  /** The error that has the node's reply. */
  readonly redirection: unknown;

  constructor(redirection: unknown) {
    super(
      'The slot of these keys is being moved to another node of the Redis Cluster, and neither node has all of them; ' +
        'nothing was executed. Wait until the slot has moved.',
      false,
      { cause: redirection, answered: true },
    );
    this.redirection = redirection;
  }
}

function notExecuted(cause: unknown): StoreUnavailableError {
  const isOutage = redirectionOf(cause)?.kind === 'down';
  return new StoreUnavailableError((cause as Error).message, false, { cause, answered: true, isOutage });
}

function tooManyRedirections(cause: unknown): StoreUnavailableError {
  return new StoreUnavailableError(
    `The nodes of the Redis Cluster disagree: a command was redirected ${REDIRECTIONS_MAX} times, and nothing was ` +
      'executed. Check the cluster with CLUSTER NODES on each node.',
    false,
    { cause, answered: true },
  );
}

function unmappedWithin(within: string): StoreUnavailableError {
  return new StoreUnavailableError(
    `No node of the Redis Cluster told its slots${within}. Check the nodes' addresses and the network.`,
    false,
  );
}
