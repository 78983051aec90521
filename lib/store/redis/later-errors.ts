import type { Redis } from 'ioredis';

/**
 * Ignores the further errors of a client's socket. One by TLS that failed may fail once more, by an alert of the other
 * side; ioredis listens for one error, and the second would end the process (one attempt in ten with a certificate that is
 * not trusted: Node 20.20, ioredis 5.11 and 6.0). To be called at the client's first error, and before it is disconnected.
 */
export function ignoreLaterErrors({ stream }: Redis): void {
  if (stream !== undefined && !stream.listeners('error').includes(ignore)) stream.on('error', ignore);
}

const ignore = () => {};
