import { bump } from './bump-command.js';
import type { Command } from '../command.js';
import { doctor } from '../doctor/doctor-command.js';
import { outboxInstall, outboxStatus, outboxUninstall } from './outbox-commands.js';
import { relay } from './relay-command.js';
import { deadLettersList, deadLettersRetry } from './dead-letter-commands.js';
import { triggersCheck, triggersRemove, triggersRepair } from './trigger-commands.js';

export const COMMANDS: readonly Command[] = [
  doctor,
  relay,
  bump,
  triggersCheck,
  triggersRepair,
  triggersRemove,
  outboxInstall,
  outboxStatus,
  outboxUninstall,
  deadLettersList,
  deadLettersRetry,
];
