/**
 * Nothing of a run stays behind, not even when its process is killed with SIGKILL.
 *
 * Each server lives in a folder of its own under the system's temporary folder: its data, its log, and
 * `server.pid`, which the process that becomes the server writes before it does. A helper, one for a process,
 * holds the reading end of a pipe and is told each folder before it is made. At the pipe's end, so when the
 * process ends in whichever way, it stops the server of each folder that still exists, and removes the folder.
 *
 * **Invariant.** What exists was announced: there is no moment in which the death of the process leaves a server
 * or a folder that the helper doesn't know.
 *
 * The folder is the registration: who stops a server in the orderly way removes it, and a restart writes
 * `server.pid` anew, so nothing needs to be taken back. The helper is a shell script and not a Node program, since
 * it has to be there at once and costs every run its memory.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type ServerKind = 'redis' | 'postgres' | 'pgbouncer';

/** A user and its group, for a server that refuses to run as root. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** Makes a server's folder, which the helper removes when this process ends. It belongs to `owner` if given. */
export function makeServerFolder(kind: ServerKind, owner?: Account): string {
  const folder = join(tmpdir(), `gencache-${kind}-${randomBytes(6).toString('hex')}`);
  announce(folder);
  mkdirSync(folder, { mode: 0o700 });
  if (owner !== undefined) chownSync(folder, owner.uid, owner.gid);
  return folder;
}

export function removeServerFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
}

/** Keeps a folder for a person to look at, also from the helper, and says on stderr where it is. */
export function keepServerFolder(folder: string): void {
  if (!existsSync(folder)) return;
  writeFileSync(join(folder, 'keep'), '');
  process.stderr.write(`KEEP: ${folder} has the server's data and its log.\n`);
}

let helper: ChildProcess | undefined;

function announce(folder: string): void {
  if (helper === undefined || helper.exitCode !== null || helper.signalCode !== null) {
    // Detached: a Ctrl-C is sent to every process of the terminal's group, and must not end the helper.
    helper = spawn('/bin/sh', ['-c', REAP, 'gencache-reaper', join(tmpdir(), 'gencache-')], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
      cwd: '/',
    });
    helper.stdin?.on('error', () => {});
    helper.unref();
    // A pipe of a child is a net.Socket, which the types don't say; referenced, it would keep the process alive.
    (helper.stdin as unknown as { unref(): void }).unref();
  }
  // Written in the call itself as long as the pipe has room: libuv tries so before it queues.
  helper.stdin?.write(`${folder}\n`);
}

/**
 * $1: what each folder's path must start with. Reads folders from stdin until its end.
 * A postmaster gets a fast shutdown, then an immediate one, so that it removes its shared memory.
 */
const REAP = `
alive() { kill -0 "$1" 2>/dev/null && ! grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"; }
gone_within() {
  tries=$(($2 * 20))
  while alive "$1"; do
    tries=$((tries - 1)); [ "$tries" -gt 0 ] || return 1
    sleep 0.05
  done
}
reap() {
  pid=$(cat "$1/server.pid" 2>/dev/null)
  case $pid in ''|*[!0-9]*) pid='' ;; esac
  if [ -n "$pid" ] && alive "$pid"; then
    case $1 in *-postgres-*)
      kill -CONT "$pid"
      kill -INT "$pid"; gone_within "$pid" 5 || { kill -QUIT "$pid"; gone_within "$pid" 5; }
    esac
    kill -KILL "$pid" 2>/dev/null; gone_within "$pid" 5
  fi
  [ -e "$1/keep" ] || rm -rf "$1"
}
folders=''
while IFS= read -r folder; do
  name=\${folder#"$1"}
  case $name in "$folder"|''|*[!a-z0-9-]*) continue ;; esac
  folders="$folders $name"
done
for name in $folders; do [ -d "$1$name" ] && reap "$1$name" & done
wait
`;
