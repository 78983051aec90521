import type { Command } from '../command.js';
import { doctorCommand } from '../doctor/doctor-command.js';
import { bumpCommand } from './bump.js';
import { coverageCommand } from './coverage.js';
import { deadLettersListCommand } from './dead-letters-list.js';
import { deadLettersRetryCommand } from './dead-letters-retry.js';
import { outboxInstallCommand } from './outbox-install.js';
import { outboxStatusCommand } from './outbox-status.js';
import { outboxUninstallCommand } from './outbox-uninstall.js';
import { relayCommand } from './relay.js';
import { triggersCheckCommand } from './triggers-check.js';
import { triggersListCommand } from './triggers-list.js';
import { triggersRemoveCommand } from './triggers-remove.js';
import { triggersRepairCommand } from './triggers-repair.js';

/** Every command, in the order of the help. */
export const COMMANDS: readonly Command[] = [
  doctorCommand,
  relayCommand,
  bumpCommand,
  coverageCommand,
  triggersListCommand,
  triggersCheckCommand,
  triggersRepairCommand,
  triggersRemoveCommand,
  outboxInstallCommand,
  outboxStatusCommand,
  outboxUninstallCommand,
  deadLettersListCommand,
  deadLettersRetryCommand,
];
