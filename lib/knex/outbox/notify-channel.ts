/** The channel on which triggers of the outbox notify relays; the payload is the name of a cache. */
export const NOTIFY_CHANNEL = 'gencache';
