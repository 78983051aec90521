/** Partitions by name, number and count: `17/64`. */
export interface PartitionsStatus {
  /** Those whose primary is away, or is not authoritative yet: their bumps wait, and readers of their bounds bypass. */
  readonly untrusted: readonly string[];
  /** Those that owe bumps of events that other partitions have taken, as of the last survey. */
  readonly owing: readonly string[];
}

/** The state of a relay, and its counts since it began. */
export interface RelayStatus {
  /** Age of the oldest event at the last survey, in ms, by PostgreSQL's clock; 0 when there was none. */
  readonly lagMs: number;
  /**
   * Whether both servers were authoritative at the last finished check, and nothing has failed since; on a Redis Cluster,
   * whether that is so of all partitions.
   */
  readonly trusted: boolean;
  /** On a Redis Cluster, if the cache has several partitions. */
  readonly partitions?: PartitionsStatus;
  readonly events: number;
  readonly scopes: number;
  readonly deadLetters: number;
  readonly repairs: number;
  readonly failures: number;
}
