/** Starts both servers, prints their pids and folders as a line of JSON, and stays until it is killed. */
import { readlinkSync } from 'node:fs';
import { startPostgres } from '../../support/servers/postgres-server.js';
import { startRedis } from '../../support/servers/redis-server.js';

const [redis, postgres] = await Promise.all([startRedis(), startPostgres()]);
const servers = [redis, postgres].map(({ pid, port }) => ({ pid, port, folder: folderOf(pid) }));
process.stdout.write(`${JSON.stringify(servers)}\n`);
setInterval(() => {}, 60_000);

/** A server's working folder is the one made for it, or PostgreSQL's `data` in it; unknown but on Linux. */
function folderOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`).replace(/\/data$/, '');
  } catch {
    return undefined;
  }
}
