import { recordCommands } from '../spec/support/commands.js';

/** How many commands clients send for this work, as MONITOR tells them, and which. Their connections may be new. */
export async function countCommands(url: string, work: () => unknown): Promise<number> {
  const { commands } = await recordCommands(url, async () => void (await work()));
  return commands.length;
}
