import { bump } from './bump.js';
import type { Command } from './command.js';
import { doctor } from './doctor/doctor.js';
import { outboxInstall, outboxStatus, outboxUninstall } from './outbox.js';
import { relay } from './relay.js';
import { setAsideList, setAsideRetry } from './set-aside.js';
import { triggersCheck, triggersRemove, triggersRepair } from './triggers.js';

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
  setAsideList,
  setAsideRetry,
];
