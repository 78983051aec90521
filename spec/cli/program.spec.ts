import { expect } from 'chai';
import { COMMANDS } from '../../lib/cli/commands/index.js';
import { privateRedis } from '../support/redis.js';
import { gencache, type Ran } from './gencache.js';

const PASSWORD = 's3cr3t-Pa55word';
const NOBODY = 'postgres://u@127.0.0.1:1/db';

describe('gencache', function () {
  this.timeout(60_000);
  describe('when it is called in a way it does not know', () => {
    const refused: [string, string[], RegExp, Record<string, string>?][] = [
      ['no command', [], /^Usage: gencache <command>/],
      ['an unknown command', ['relai'], /^There is no command `gencache relai`\.\n\nUsage: gencache <command>/],
      ['half a command', ['outbox'], /^Usage: [^]*gencache outbox install/],
      [
        'an unknown option',
        ['relay', '--cach', 'shop'],
        /Unknown option '--cach'[^]*Usage: gencache relay --cache NAME/,
      ],
      ['an argument too many', ['relay', 'shop'], /Unexpected argument 'shop'/],
      ['no cache', ['relay'], /^This command is about one cache\. None is named\. Add --cache NAME\.\nUsage: /],
      ['a name that is none', ['doctor', '--cache', 'Shop!'], /^The name of a cache must be .*, but got 'Shop!'\./],
      [
        'a number that is none',
        ['relay', '--cache', 'shop', '--poll', '-1'],
        /--poll/,
        { DATABASE_URL: NOBODY, REDIS_URL: 'redis://127.0.0.1:1' },
      ],
      [
        'a bound that none is',
        ['doctor', '--cache', 'shop', '--max-staleness', '99'],
        /^--max-staleness is a whole number from 100 to 3600000\. Got '99'\./,
      ],
      [
        'a step that is none',
        ['doctor', '--cache', 'shop', '--expect', '5'],
        /^--expect is a step of the ladder: 0, 1, /,
      ],
      [
        'no database',
        ['outbox', 'status'],
        /^This command needs the server's address\. There is none\. Set DATABASE_URL/,
      ],
      ['no Redis', ['relay', '--cache', 'shop'], /Set REDIS_URL, or add --redis URL\./, { DATABASE_URL: NOBODY }],
    ];
    let runs: Promise<Ran>[];
    before(() => {
      runs = refused.map(([, args, , env]) => gencache(args, env)); // at once: most of it is the start of a process
    });
    for (const [i, [what, , message]] of refused.entries()) {
      it(`${what}: tells the rule and the usage on stderr, and exits with 64`, async () => {
        const ran = await runs[i]!;
        expect(ran.err).to.match(message);
        expect(ran.err).to.include('Usage: gencache');
        expect(ran).to.include({ code: 64, out: '' });
      });
    }
  });

  describe('when help is asked for', () => {
    it('lists the commands', async () => {
      const ran = await gencache(['--help']);
      for (const { words } of COMMANDS) expect(ran.out).to.include(`gencache ${words.join(' ')} `);
      expect(ran).to.include({ code: 0, err: '' });
    });

    it('lists those of a group', async () => {
      const { out, code } = await gencache(['help', 'outbox']);
      expect(out).to.include('gencache outbox status').and.not.include('gencache relay');
      expect(code).to.equal(0);
    });

    let helps: Promise<Ran>[];
    before(() => {
      helps = COMMANDS.map(({ words }) => gencache([...words, '--help']));
    });
    for (const [i, { words, options }] of COMMANDS.entries()) {
      it(`tells every option of ${words.join(' ')}, with an example`, async () => {
        const ran = await helps[i]!;
        expect(ran.out).to.match(new RegExp(`^Usage: gencache ${words.join(' ')}`));
        expect(ran.out).to.include(`Example:\n  gencache ${words.join(' ')}`);
        for (const option of Object.keys(options)) expect(ran.out).to.include(`  --${option}`);
        expect(ran).to.include({ code: 0, err: '' });
      });
    }
  });

  describe('passwords', () => {
    const hidden = ({ out, err }: Ran) => expect(out + err).to.not.include(PASSWORD);

    it('are not told when a server is away', async () => {
      const database = `postgres://user:${PASSWORD}@127.0.0.1:1/db`;
      const status = await gencache(['outbox', 'status', '--database', database]);
      expect(status).to.include({ code: 1 });
      expect(status.err).to.include('ECONNREFUSED');
      hidden(status);
      const redis = `redis://user:${PASSWORD}@127.0.0.1:1`;
      const doctor = await gencache(['doctor', '--cache', 'shop'], { DATABASE_URL: database, REDIS_URL: redis });
      expect(doctor).to.include({ code: 1, err: '' });
      expect(doctor.out).to.match(/broken +PostgreSQL +can't be asked: .*ECONNREFUSED/);
      expect(doctor.out).to.match(/broken +Redis +can't be asked: .*ECONNREFUSED/);
      hidden(doctor);
    });

    it('are not told when a server refuses them', async () => {
      const { port } = await privateRedis({ args: ['--requirepass', 'another'] });
      const doctor = await gencache(['doctor', '--cache', 'shop'], {
        DATABASE_URL: NOBODY,
        REDIS_URL: `redis://:${PASSWORD}@127.0.0.1:${port}`,
      });
      expect(doctor.out).to.match(/broken +Redis +can't be asked: WRONGPASS/);
      hidden(doctor);
    });

    it('are not told back to who typed them in the wrong place, or misspelt the rest', async () => {
      const place = await gencache(['relay', '--cache', 'shop', `redis://:${PASSWORD}@localhost`]);
      expect(place.err).to.include("Unexpected argument 'redis://***@localhost'");
      hidden(place);
      const word = await gencache([`postgres://user:${PASSWORD}@localhost/db`]);
      expect(word.err).to.include('There is no command `gencache postgres://***@localhost/db`');
      hidden(word);
      const port = await gencache(['outbox', 'status', '--database', `postgres://user:${PASSWORD}@localhost:port/db`]);
      expect(port.err).to.match(/^--database is a URL that begins with postgres:\/\/\. It is not\./);
      expect(port.code).to.equal(64);
      hidden(port);
      const kind = await gencache(['outbox', 'status'], { DATABASE_URL: `mysql://user:${PASSWORD}@localhost/db` });
      expect(kind.err).to.match(/^DATABASE_URL is a URL that begins with postgres:\/\/\. It is not\./);
      hidden(kind);
    });
  });
});
