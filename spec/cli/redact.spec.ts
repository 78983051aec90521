import { expect } from 'chai';
import fc from 'fast-check';
import { redactor } from '../../lib/cli/redact.js';

describe('redactor', () => {
  it('hides the passwords of a given URL anywhere in a text', () => {
    const shown = redactor({ address: 'postgres://shop:a%2Fb%2Bc@db.example/shop?password=other' });
    expect(shown('tried a/b+c, a%2Fb%2Bc and "other" at db.example')).to.equal(
      'tried ***, *** and "***" at db.example',
    );
    expect(shown('postgres://shop:a%2Fb%2Bc@db.example/shop')).to.equal('postgres://***@db.example/shop');
  });

  it('hides the password of a URL without a host, and one that only the driver can read', () => {
    const shown = redactor(
      { address: 'postgresql://app:a%2Fbc@/shop?host=/path' },
      { address: '/path shop', password: 'secret' },
    );
    expect(shown('tried a/bc, a%2Fbc and "secret"')).to.equal('tried ***, *** and "***"');
  });

  it('hides the password of any other URL in a text', () => {
    expect(redactor()('at redis://:x/y@host:1 and rediss://u:p@h')).to.equal(
      'at redis://***@host:1 and rediss://***@h',
    );
  });

  it('keeps words that contain a short password, and a password that is also the name of the user', () => {
    const shown = redactor({ address: 'postgres://postgres:postgres@db/app' }, { address: 'redis://:at@db' });
    expect(shown('what postgres says at noon')).to.equal('what postgres says *** noon');
  });

  it('hides any password, as written and percent-encoded', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[!-~]{4,20}$/), (password) => {
        const url = new URL('postgres://someone@db.example/shop');
        url.password = password;
        // A percent-encoded text stands for another password.
        fc.pre(!/%[0-9a-f]{2}/i.test(password));
        fc.pre(url.password !== '' && !['someone', 'db.example', 'shop'].includes(password));
        expect(redactor({ address: url.href })(`tried ${password} there`)).to.equal('tried *** there');
        expect(redactor({ address: url.href })(`tried ${url.password} there`)).to.equal('tried *** there');
      }),
    );
  });
});
