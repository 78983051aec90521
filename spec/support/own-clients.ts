import type { Redis } from 'ioredis';

/**
 * The clients that a store on one server makes of its owner's: that for commands, and then that for pushes. `pushesPort`:
 * where that one leads, if not to the owner's port.
 */
export function ownClients(owner: Redis, pushesPort?: number): readonly Redis[] {
  const clients: Redis[] = [];
  const duplicate = owner.duplicate.bind(owner);
  owner.duplicate = (options) => {
    const leadsElsewhere = clients.length === 1 && pushesPort !== undefined;
    const client = duplicate({ ...options, ...(leadsElsewhere && { port: pushesPort }) });
    // A connection that opens again takes the owner's options of that moment.
    if (leadsElsewhere) Object.defineProperty(client.options, 'port', { get: () => pushesPort, set: () => {} });
    clients.push(client);
    return client;
  };
  return clients;
}
