export { BumpError } from './write/bump-error.js';
export { type CacheOptions, GenerationalCache } from './cache.js';
export type { Clock } from './ports/clock.js';
export { DeadlineError } from './async/deadline.js';
export type { EntryOptions, KeyInput, KeyKinds, KeyOutput } from './model/entry-definition.js';
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
} from './errors/errors.js';
export type * from './telemetry/events.js';
export type { Generation } from './model/generation.js';
export { type IdKind, integer, nullable, text, uuid } from './model/id-kind.js';
export { CommitUnknownError } from './knex/commit.js';
export { type KnexContext, knexSource } from './knex/knex-source.js';
export { installOutbox, outboxMigrations, uninstallOutbox } from './knex/install/install-outbox.js';
export { notifyRelays } from './knex/install/notify-relays.js';
export type { OutboxOptions } from './knex/outbox/location.js';
export { QuarantineError } from './knex/strict-commit.js';
export type * from './knex/relay/relay-events.js';
export { type Relay, type RelayOptions, type RelayStatus, startRelay } from './knex/relay/relay.js';
export { type NarrowOptions, narrowBump, waiveBump, type WaiveOptions } from './knex/migrations/narrow-bump.js';
export {
  installMigrationsTrigger,
  type MigrationsTriggerOptions,
  uninstallMigrationsTrigger,
} from './knex/migrations/migrations-trigger.js';
export { type MigrationBumps, withGenerations } from './knex/migrations/with-generations.js';
export { migrate, MigrationBumpError, type MigrateOptions } from './knex/migrations/migrate.js';
export * from './knex/triggers/index.js';
export type { Logger } from './telemetry/log.js';
export type { BumpOptions, Namespace } from './namespace.js';
export type { CacheSettings } from './options.js';
export type { Outcome } from './model/outcome.js';
export type { Scope } from './model/scope.js';
export type { BumpTarget, Committed, Outbox, Source, TransactionOptions } from './ports/source.js';
export { COUNTERS, type Counter, type Series, type Statistics } from './telemetry/statistics.js';
export { memoryStore, type MemoryStoreOptions } from './store/memory/memory-store.js';
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
} from './ports/store.js';
export type { Vector } from './model/vector.js';
