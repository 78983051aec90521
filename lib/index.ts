export { BumpError } from './bump-error.js';
export { type CacheOptions, GenerationalCache } from './cache.js';
export type { Clock } from './clock.js';
export { DeadlineError } from './deadline.js';
export type { EntryOptions, KeyInput, KeyKinds, KeyOutput } from './definition.js';
export type { Entry, FetchOptions, ReadOptions } from './entry.js';
export {
  ClosedError,
  ConfigurationError,
  type ErrorCode,
  GencacheError,
  IdError,
  LoaderContractError,
  OversizedValueError,
  SchemaMismatchError,
  UnencodableValueError,
} from './errors.js';
export type * from './events.js';
export type { Generation } from './generation.js';
export { type IdKind, integer, nullable, text, uuid } from './id-kind.js';
export { CommitUnknownError } from './knex/commit.js';
export { type KnexContext, knexSource } from './knex/knex-source.js';
export { installOutbox, outboxMigrations, uninstallOutbox } from './knex/outbox/install.js';
export { notifyRelays } from './knex/outbox/notify.js';
export type { OutboxOptions } from './knex/outbox/place.js';
export { QuarantineError } from './knex/quarantine.js';
export type * from './knex/relay/relay-events.js';
export { type Relay, type RelayOptions, type RelayStatus, startRelay } from './knex/relay/relay.js';
export { type NarrowOptions, narrowBump, waiveBump, type WaiveOptions } from './knex/migrations/narrow-bump.js';
export {
  installMigrationsTrigger,
  type MigrationsTriggerOptions,
  uninstallMigrationsTrigger,
} from './knex/migrations/trigger.js';
export { type MigrationBumps, withGenerations } from './knex/migrations/with-generations.js';
export { migrate, MigrationBumpError, type MigrateOptions } from './knex/migrations/migrate.js';
export * from './knex/triggers/index.js';
export type { Logger } from './log.js';
export type { BumpOptions, Namespace } from './namespace.js';
export type { CacheSettings } from './options.js';
export type { Outcome } from './outcome.js';
export type { Scope } from './scope.js';
export type { Bumps, Committed, Outbox, Source, TransactionOptions } from './source.js';
export { COUNTERS, type Counter, type Series, type Statistics } from './statistics.js';
export { memoryStore, type MemoryStoreOptions } from './store/memory-store.js';
export { redisStore } from './store/redis/redis-store.js';
export {
  type FillBatch,
  type FillReply,
  type Renewal,
  type Repair,
  type Store,
  type StoreListener,
  type StoreSignal,
  StoreUnavailableError,
} from './store/store.js';
export type { Vector } from './vector.js';
