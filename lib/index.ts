/** `gencache`: the cache and the in-memory store. Loads no peer dependency. */
export { DeadlineError } from './async/deadline.js';
export { type CacheOptions, GenerationalCache } from './cache.js';
export type { Entry, FetchOptions, ReadOptions } from './entry.js';
export {
  ClosedError,
  ConfigurationError,
  type ErrorCode,
  GencacheError,
  IdError,
  LoaderContractError,
  LoadTimeoutError,
  OversizedValueError,
  SchemaMismatchError,
  SourceOverloadError,
  UnencodableValueError,
} from './errors/errors.js';
export type { CacheDeclaration, NamespaceContents, NamespaceDeclaration } from './model/cache-declaration.js';
export type {
  EntryOptions,
  KeyInput,
  KeyKinds,
  KeyOutput,
  LoadContext,
  ValueOptions,
} from './model/entry-definition.js';
export type { Generation } from './model/generation.js';
export { type IdKind, int4, integer, nullable, text, uuid } from './model/id-kind.js';
export type { BypassReason, MissCause, Outcome, Staleness, StaleReason } from './model/outcome.js';
export type { Scope } from './model/scope.js';
export type { Vector } from './model/vector.js';
export type { BumpOptions, Namespace } from './namespace.js';
export type { CacheSettings, LocalOptions } from './options.js';
export type { Clock } from './ports/clock.js';
export type { BumpTarget, Committed, Outbox, Source, TransactionOptions } from './ports/source.js';
export {
  type Claim,
  type ClaimBatch,
  type Claimed,
  type FillBatch,
  type Filled,
  type FillReply,
  type PartitionedStore,
  type Renewal,
  type Repair,
  type Store,
  type StoreLifecycle,
  type StoreListener,
  type StorePartition,
  type StoreSignal,
  StoreUnavailableError,
} from './ports/store.js';
export { memoryStore, type MemoryStoreOptions } from './store/memory/memory-store.js';
export type * from './telemetry/events.js';
export type { Logger } from './telemetry/log.js';
export type {
  CacheState,
  ConnectionState,
  LoadCounts,
  LocalCounts,
  PartState,
  TrackingCounts,
  UnverifiedReason,
} from './telemetry/state.js';
export { COUNTERS, type Counter, type Series, type Statistics } from './telemetry/statistics.js';
export { BumpError } from './write/bump-error.js';
