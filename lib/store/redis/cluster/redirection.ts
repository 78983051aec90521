import { StoreUnavailableError } from '../../../ports/store.js';

/** A node's address, as another node tells it. An empty host stands for the host of the node that tells. */
export interface NodeAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * A node's refusal of a command that it has not executed, since the slot of the command's keys is elsewhere:
 *
 * - `moved`: another node owns the slot.
 * - `ask`: the slot is being moved, and the keys are not here, so they can only be at the other node.
 * - `try_again`: the slot is being moved, and some of the keys are at the other node.
 * - `down`: the node knows no node that serves the slot, or it is cut off from the others.
 */
export type Redirection =
  { readonly kind: 'moved' | 'ask'; readonly to: NodeAddress } | { readonly kind: 'try_again' | 'down' };

/** Returns the redirection in the error of a command; undefined for any other error. */
export function redirectionOf(error: unknown): Redirection | undefined {
  if (!(error instanceof StoreUnavailableError) || !(error.cause instanceof Error)) return undefined;
  const { message } = error.cause;
  const [code, , address] = message.split(' ');
  if (code === 'TRYAGAIN') return { kind: 'try_again' };
  if (code === 'CLUSTERDOWN') return { kind: 'down' };
  const kind = code === 'MOVED' ? 'moved' : code === 'ASK' ? 'ask' : undefined;
  if (kind === undefined || address === undefined) return undefined;
  const colon = address.lastIndexOf(':');
  return { kind, to: { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) } };
}
