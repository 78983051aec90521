/**
 * `gencache/knex`: the source on Knex and PostgreSQL, the outbox, triggers, migrations and the relay. Needs knex and pg, and loads neither: the
 * application passes its Knex.
 */
export { CommitUnknownError } from './commit.js';
export { installOutbox, outboxMigrations, uninstallOutbox } from './install/install-outbox.js';
export { notifyRelays } from './install/notify-relays.js';
export { type KnexContext, knexSource } from './knex-source.js';
export { migrate, MigrationBumpError, type MigratedCache, type MigrateOptions } from './migrations/migrate.js';
export {
  installMigrationsTrigger,
  type MigrationsTriggerOptions,
  uninstallMigrationsTrigger,
} from './migrations/migrations-trigger.js';
export { type NarrowOptions, narrowBump, waiveBump, type WaiveOptions } from './migrations/narrow-bump.js';
export { type MigrationBumps, withGenerations } from './migrations/with-generations.js';
export type { OutboxOptions } from './outbox/location.js';
export { HiddenRowsError } from './outbox/row-security.js';
export type * from './relay/relay-events.js';
export { type Relay, startRelay } from './relay/relay.js';
export type { RelayOptions } from './relay/relay-options.js';
export type { PartitionsStatus, RelayStatus } from './relay/relay-status.js';
export { QuarantineError } from './strict-commit.js';
export * from './triggers/index.js';
export * from './coverage/index.js';
