import type { Redis } from 'ioredis';
import type { NodeAddress } from './redirection.js';

/** Which node owns which slots, as one node knows it. */
export interface SlotMap {
  /** Whether that node believes that the cluster serves: a node that is cut off from the others does not. */
  readonly isOk: boolean;
  readonly ranges: readonly { readonly first: number; readonly last: number; readonly primary: NodeAddress }[];
  /** All nodes, replicas too. */
  readonly nodes: readonly NodeAddress[];
}

type Reply = [first: number, last: number, ...nodes: [host: string | null, port: number][]][];

/** Asks a node for its slot map. Two commands, in one round trip. `askedHost` stands in for a host that it does not tell. */
export async function readSlotMap(client: Redis, askedHost: string): Promise<SlotMap> {
  const [state, slots] = await Promise.all([
    // Only a hint: the right to run it is not needed.
    client.cluster('INFO').then(String, () => ''),
    client.cluster('SLOTS') as unknown as Promise<Reply>,
  ]);
  /** A node that lost its address has port 0, one without a hostname where hostnames are wanted the host '?'. */
  const addressOf = ([host, port]: [string | null, number]): NodeAddress | undefined =>
    port === 0 || host === '?' ? undefined : { host: host === null || host === '' ? askedHost : host, port };
  return {
    isOk: !state.includes('cluster_state:fail'),
    ranges: slots.flatMap(([first, last, primary]) => {
      const address = primary && addressOf(primary);
      return address === undefined ? [] : [{ first, last, primary: address }];
    }),
    nodes: slots.flatMap(([, , ...nodes]) => nodes.flatMap((node) => addressOf(node) ?? [])),
  };
}

export function ownerOf(map: SlotMap, slot: number): NodeAddress | undefined {
  return map.ranges.find(({ first, last }) => first <= slot && slot <= last)?.primary;
}
