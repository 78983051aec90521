/**
 * The files of a new PostgreSQL cluster: made by initdb, or copied from one that the run has made before.
 *
 * initdb takes 0.7 s of a core, a copy 0.1 s, and a run of all specs starts some thirty servers. Copies are one system
 * to PostgreSQL (`system_identifier`), as a primary and its standby are.
 */
import { join } from 'node:path';
import { postgresBinaries } from './binaries.js';
import { type Account, makeServerFolder, removeServerFolder } from './reaper.js';
import { launch, serverLog } from './server-process.js';

const CREATE_MS = 60_000;

/** In the environment, also of workers and of programs: the cluster to copy. */
const TEMPLATE = 'GENCACHE_SPEC_CLUSTER';

/** Makes the cluster that this process, and those it starts, copy from now on; removed when this process exits. */
export async function shareCluster(account: Account | undefined): Promise<void> {
  if (process.env[TEMPLATE] !== undefined) return;
  const folder = makeServerFolder('postgres', account);
  process.once('exit', () => removeServerFolder(folder));
  process.env[TEMPLATE] = await createCluster(folder, account);
}

/** Makes a cluster in a server's folder, and tells where: a copy if the run shares one, unless it is to be another system. */
export async function makeCluster(
  folder: string,
  account: Account | undefined,
  { otherSystem = false }: { readonly otherSystem?: boolean } = {},
): Promise<string> {
  const template = process.env[TEMPLATE];
  if (template === undefined || otherSystem) return createCluster(folder, account);
  return make(folder, 'cp', (data) => ['-Rp', template, data], account);
}

function createCluster(folder: string, account: Account | undefined): Promise<string> {
  const { initdb } = postgresBinaries();
  const options = ['-U', 'postgres', '--auth=trust', '-E', 'UTF8', '--locale=C', '--no-sync'];
  return make(folder, initdb, (data) => ['-D', data, ...options], account);
}

async function make(
  folder: string,
  program: string,
  args: (data: string) => string[],
  account: Account | undefined,
): Promise<string> {
  const data = join(folder, 'data');
  const making = await launch(folder, program, args(data), account);
  if (!(await making.endsWithin(CREATE_MS))) {
    throw new Error(`${program} has not made a cluster within ${CREATE_MS} ms. Its log:\n${serverLog(folder)}`);
  }
  return data;
}
