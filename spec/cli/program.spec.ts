import { expect } from 'chai';
import { COMMANDS } from '../../lib/cli/commands/index.js';
import { checkCacheName } from '../../lib/model/cache-name.js';
import { databaseUrl, lendDatabase } from '../support/postgres.js';
import { privateRedis } from '../support/redis.js';
import { thrown } from '../support/rejection.js';
import { gencache, type Ran, startGencache } from './gencache.js';
import { describeCommand } from './installation.js';

const PASSWORD = 's3cr3t-Pa55word';
const NO_SERVER = 'postgres://u@127.0.0.1:1/db';

describeCommand('gencache', () => {
  it('ends its process with the exit code of the command, results on stdout, all else on stderr', async () => {
    const program = (args: readonly string[], env = {}) => startGencache(args, env).ended;
    const [misused, failed, done] = await Promise.all([
      program(['relay', '--cache', 'Shop!']),
      program(['outbox', 'status'], { DATABASE_URL: NO_SERVER }),
      program(['outbox', 'status', '--help']),
    ]);
    expect(misused).to.include({ code: 64, out: '' });
    expect(misused.err).to.match(/Usage: gencache relay/);
    expect(failed).to.include({ code: 1, out: '' });
    expect(failed.err).to.match(/^gencache outbox status failed: PostgreSQL is unreachable/);
    expect(done).to.include({ code: 0, err: '' });
    expect(done.out).to.match(/^Usage: gencache outbox status/);
  });

  describe('when the command line is wrong', () => {
    /** The fault, the arguments, the start of stderr, and the environment. */
    const refused: [string, string[], RegExp | string, Record<string, string>?][] = [
      ['no command', [], /^Usage: gencache <command>/],
      ['an unknown command', ['relai'], /^There is no command `gencache relai`\.\n\nUsage: gencache <command>/],
      ['an incomplete command', ['outbox'], /^Usage: [^]*gencache outbox install/],
      [
        'an unknown option',
        ['relay', '--cach', 'shop'],
        /Unknown option '--cach'[^]*Usage: gencache relay --cache NAME/,
      ],
      ['a surplus argument', ['relay', 'shop'], /Unexpected argument 'shop'/],
      ['no --cache', ['relay'], /^--cache must be the name of a cache, but is missing\. Add --cache NAME\.\nUsage: /],
      [
        'an invalid cache name',
        ['doctor', '--cache', 'Shop!'],
        `${thrown(() => checkCacheName('Shop!')).message}\nUsage: `,
      ],
      [
        'a negative number',
        ['relay', '--cache', 'shop', '--poll', '-1'],
        /--poll/,
        { DATABASE_URL: NO_SERVER, REDIS_URL: 'redis://127.0.0.1:1' },
      ],
      [
        'a bound below 100 ms',
        ['doctor', '--cache', 'shop', '--max-staleness', '99'],
        /^--max-staleness must be an integer from 100 to 3600000, but got '99'\./,
      ],
      [
        'an unknown step',
        ['doctor', '--cache', 'shop', '--expect', '5'],
        /^--expect must be a step of the ladder \(0, 1, .*\), but got '5'\./,
      ],
      [
        'no DATABASE_URL',
        ['outbox', 'status'],
        /^DATABASE_URL must be the address of a server, but is not set\. Set it, or add --database URL\./,
      ],
      [
        'no REDIS_URL',
        ['relay', '--cache', 'shop'],
        /^REDIS_URL must be the address of a server, but is not set\. Set it, or add --redis URL\./,
        { DATABASE_URL: NO_SERVER },
      ],
    ];
    let runs: Promise<Ran>[];
    before(() => {
      runs = refused.map(([, args, , env]) => gencache(args, env));
    });
    for (const [i, [what, , message]] of refused.entries()) {
      it(`rejects ${what}: the rule and the usage on stderr, exit code 64`, async () => {
        const ran = await runs[i]!;
        if (typeof message === 'string') expect(ran.err.startsWith(message), ran.err).to.equal(true);
        else expect(ran.err).to.match(message);
        expect(ran.err).to.include('Usage: gencache');
        expect(ran).to.include({ code: 64, out: '' });
      });
    }
  });

  describe('help', () => {
    it('lists every command', async () => {
      const ran = await startGencache(['--help']).ended;
      for (const { words } of COMMANDS) expect(ran.out).to.include(`gencache ${words.join(' ')} `);
      expect(ran).to.include({ code: 0, err: '' });
    });

    it('lists the commands of a group', async () => {
      const { out, code } = await gencache(['help', 'outbox']);
      expect(out).to.include('gencache outbox status').and.not.include('gencache relay');
      expect(code).to.equal(0);
    });

    let helps: Promise<Ran>[];
    before(() => {
      helps = COMMANDS.map(({ words }) => gencache([...words, '--help']));
    });
    for (const [i, { words, options }] of COMMANDS.entries()) {
      it(`shows every option of ${words.join(' ')}, and an example`, async () => {
        const ran = await helps[i]!;
        expect(ran.out).to.match(new RegExp(`^Usage: gencache ${words.join(' ')}`));
        expect(ran.out).to.include(`Example:\n  gencache ${words.join(' ')}`);
        for (const option of Object.keys(options)) expect(ran.out).to.include(`  --${option}`);
        expect(ran).to.include({ code: 0, err: '' });
      });
    }
  });

  describe('addresses of servers', () => {
    it('may be any that pg takes: a host as a parameter, a socket', async () => {
      const db = await lendDatabase();
      const url = new URL(databaseUrl());
      const { rows } = await db.raw<{ rows: { folder: string; name: string; role: string }[] }>(
        `select current_setting('unix_socket_directories') as folder, current_database() as name, current_user as role`,
      );
      const { folder, name, role } = rows[0]!;
      for (const address of [
        `postgresql://${role}:${PASSWORD}@/${name}?host=${folder}&port=${url.port}`,
        `postgres://${role}:${PASSWORD}@/${name}?host=127.0.0.1&port=${url.port}`,
        `postgres:///${name}?host=127.0.0.1&port=${url.port}&user=${role}&password=${PASSWORD}`,
        `postgres://${role}:${PASSWORD}@${encodeURIComponent(folder)}:${url.port}/${name}`,
      ]) {
        const status = await gencache(['outbox', 'status', '--schema', 'none_of_these'], { DATABASE_URL: address });
        expect(status, address).to.include({ code: 1, out: 'There is no outbox.\n', err: '' });
      }
    });

    it('may be any that ioredis takes: a password as a parameter, no host', async () => {
      const { port } = await privateRedis({ args: ['--requirepass', PASSWORD] });
      for (const address of [
        `redis://127.0.0.1:${port}?password=${PASSWORD}`,
        `redis://:${PASSWORD}@127.0.0.1:${port}/1?family=4`,
      ]) {
        const { out } = await gencache(['doctor', '--cache', 'shop'], { DATABASE_URL: NO_SERVER, REDIS_URL: address });
        expect(out, address).to.match(/ok +Redis +\d+\.\d+.*, a primary\n/);
      }
    });

    it('are refused with the path of a certificate that is not there', async () => {
      const address = `postgres://app:${PASSWORD}@127.0.0.1/shop?sslrootcert=/no/such/file`;
      const { code, err } = await gencache(['outbox', 'status'], { DATABASE_URL: address });
      expect(err).to.match(
        /^DATABASE_URL names a file that can't be read: \/no\/such\/file \(ENOENT\)\. Correct the path\./,
      );
      expect(code).to.equal(64);
    });
  });

  describe('passwords', () => {
    const hidden = ({ out, err }: Ran) => expect(out + err).to.not.include(PASSWORD);

    it('are hidden when a server is away', async () => {
      const database = `postgres://user:${PASSWORD}@127.0.0.1:1/db`;
      const status = await gencache(['outbox', 'status', '--database', database]);
      expect(status).to.include({ code: 1 });
      expect(status.err).to.include('ECONNREFUSED');
      hidden(status);
      const redis = `redis://user:${PASSWORD}@127.0.0.1:1`;
      const doctor = await gencache(['doctor', '--cache', 'shop'], { DATABASE_URL: database, REDIS_URL: redis });
      expect(doctor).to.include({ code: 1, err: '' });
      expect(doctor.out).to.match(/broken +PostgreSQL +the server is unreachable: .*ECONNREFUSED/);
      expect(doctor.out).to.match(/broken +Redis +the server is unreachable: .*ECONNREFUSED/);
      hidden(doctor);
    });

    it('are hidden when a server refuses them', async () => {
      const { port } = await privateRedis({ args: ['--requirepass', 'another'] });
      const doctor = await gencache(['doctor', '--cache', 'shop'], {
        DATABASE_URL: NO_SERVER,
        REDIS_URL: `redis://:${PASSWORD}@127.0.0.1:${port}`,
      });
      expect(doctor.out).to.match(/broken +Redis +the server is unreachable: WRONGPASS/);
      hidden(doctor);
    });

    it('are hidden in messages about a misplaced or malformed URL', async () => {
      const place = await gencache(['relay', '--cache', 'shop', `redis://:${PASSWORD}@localhost`]);
      expect(place.err).to.include("Unexpected argument 'redis://***@localhost'");
      hidden(place);
      const word = await gencache([`postgres://user:${PASSWORD}@localhost/db`]);
      expect(word.err).to.include('There is no command `gencache postgres://***@localhost/db`');
      hidden(word);
      const port = await gencache(['outbox', 'status', '--database', `postgres://user:${PASSWORD}@localhost:port/db`]);
      expect(port.err).to.match(
        /^--database must be an address that begins with postgres:\/\/ and can be parsed, but got another text, /,
      );
      expect(port.code).to.equal(64);
      hidden(port);
      const kind = await gencache(['outbox', 'status'], { DATABASE_URL: `mysql://user:${PASSWORD}@localhost/db` });
      expect(kind.err).to.match(
        /^DATABASE_URL must be an address that begins with postgres:\/\/ and can be parsed, but got another text, /,
      );
      hidden(kind);
    });
  });
});
