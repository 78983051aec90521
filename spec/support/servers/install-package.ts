/**
 * Installs a server's package when it is missing, where that needs no questions: on Debian or Ubuntu, as root.
 * Elsewhere it throws an error that names the one command that does.
 *
 * **Invariant.** The installation starts no service, now or at the next boot, and leaves the system's policies as
 * they were.
 *
 * Debian's packages start their service as they are configured, unless `/usr/sbin/policy-rc.d` exits with 101
 * (https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt). A policy that already forbids it, as in
 * most containers, stays. Otherwise ours takes its place until the installation ends, however it ends; one that
 * a SIGKILL left behind is recognized by its mark and removed by the next run. PostgreSQL's package also creates a
 * cluster, which would start at the next boot: a file in `createcluster.d` forbids that for as long. Redis's unit
 * is disabled after the installation.
 *
 * The steps run under `flock`, so that of several runs side by side one installs and the others wait for it and
 * find it done; the kernel gives up the lock of a run that dies.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export interface ServerPackage {
  /** What is missing, as a person calls it: `redis-server`. */
  readonly missing: string;
  readonly apt: string;
  readonly dnf: string;
  readonly brew: string;
}

/** Installs a package or throws an error that names the command that would. Says so on stderr. */
export function installPackage(wanted: ServerPackage): void {
  if (!isDebian() || process.getuid?.() !== 0) {
    throw new Error(
      `The specs need ${wanted.missing}, which is neither in PATH nor in the folders where packages put it. ` +
        `Install it with: ${commandFor(wanted)}`,
    );
  }
  process.stderr.write(`${wanted.missing} is missing: installing the package ${wanted.apt} with apt-get.\n`);
  const { status, stdout, stderr } = spawnSync('flock', [LOCK, 'sh', '-c', INSTALL, 'install', wanted.apt], {
    encoding: 'utf8',
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status !== 0) {
    throw new Error(
      `Installing the package ${wanted.apt} failed (exit code ${status}). apt-get said:\n${stdout}${stderr}` +
        `Install it by hand with: ${commandFor(wanted)}`,
    );
  }
}

function commandFor({ apt, dnf, brew }: ServerPackage): string {
  if (process.platform === 'darwin') return `brew install ${brew}`;
  if (isDebian()) return `sudo apt-get install ${apt}`;
  return `sudo dnf install ${dnf}`;
}

function isDebian(): boolean {
  try {
    return /^ID(_LIKE)?=.*\b(debian|ubuntu)\b/m.test(readFileSync('/etc/os-release', 'utf8'));
  } catch {
    return false;
  }
}

const LOCK = '/run/lock/gencache-install';

/** $1: the package. Exits with 0 if it is installed, by this program or by another. */
const INSTALL = `
set -eu
policy=/usr/sbin/policy-rc.d aside=/usr/sbin/policy-rc.d.before-gencache mark='# gencache: while it installs'
cluster=/etc/postgresql-common/createcluster.d/gencache.conf

installed() { [ "$(dpkg-query --show --showformat '\${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
forbids() { code=0; "$policy" "$1" start >/dev/null 2>&1 || code=$?; [ "$code" = 101 ]; }
restore() {
  rm -f "$cluster"
  rmdir -p --ignore-fail-on-non-empty "\${cluster%/*}" 2>/dev/null || true
  if grep -qs "$mark" "$policy"; then rm -f "$policy"; fi
  if [ -e "$aside" ]; then mv "$aside" "$policy"; fi
}

restore
if installed "$1"; then exit 0; fi
trap restore EXIT
trap 'exit 143' HUP INT TERM
if ! [ -e "$policy" ] || ! forbids "$1"; then
  if [ -e "$policy" ]; then mv "$policy" "$aside"; fi
  printf '#!/bin/sh\\n%s\\nexit 101\\n' "$mark" > "$policy"
  chmod 755 "$policy"
fi
mkdir -p "\${cluster%/*}"
echo 'create_main_cluster = false' > "$cluster"

apt-get update -q || echo 'apt-get update failed: trying with the lists that are there'
apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$1"
if command -v systemctl >/dev/null; then systemctl disable --quiet "$1" || true; fi
`;
