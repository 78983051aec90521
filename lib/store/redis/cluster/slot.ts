/** Redis Cluster's slots: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model */

export const SLOTS = 16_384;

/** Returns the slot of the keys that begin with this prefix, by the prefix' hash tag; of the whole text without one. */
export function slotOf(prefix: string): number {
  const open = prefix.indexOf('{');
  const close = prefix.indexOf('}', open + 1);
  const hashed = open >= 0 && close > open + 1 ? prefix.slice(open + 1, close) : prefix;
  return crc16(Buffer.from(hashed)) % SLOTS;
}

/** CRC-16/XMODEM. */
function crc16(bytes: Buffer): number {
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
  }
  return crc;
}
