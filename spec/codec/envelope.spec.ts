import { expect } from 'chai';
import fc from 'fast-check';
import { crc32 } from 'node:zlib';

import { ABSENT, UNSTORABLE, open, seal } from '../../lib/codec/envelope.js';

const KEY = 'gc:workflow_engine:1:{42}:workflows';
const value = { id: 42, name: 'Disk full', updatedAt: new Date('2026-11-01T12:00:00.000Z') };

/** An entry with a right checksum around any tag and payload, as no release writes it. */
function forge(key: string, tag: number, payload: Uint8Array): Buffer {
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(payload, crc32(key + String.fromCharCode(tag))));
  return Buffer.concat([Buffer.from('gc\u0001'), Buffer.from([tag]), checksum, payload]);
}

describe('envelope', function () {
  this.timeout(20_000);

  it('opens a value that was sealed under the same key', () => {
    expect(open(KEY, seal(KEY, value))).to.deep.equal({ ok: true, value, life: undefined });
    expect(open(KEY, seal(KEY, null))).to.deep.equal({ ok: true, value: null, life: undefined });
    expect(open(KEY, seal(KEY, undefined))).to.deep.equal({ ok: true, value: undefined, life: undefined });
    expect(open(KEY, seal(KEY, [1n]))).to.deep.equal({ ok: true, value: [1n], life: undefined });
  });

  it('keeps absent apart from null, undefined and an empty list', () => {
    expect(open(KEY, seal(KEY, ABSENT))).to.deep.equal({ ok: true, value: ABSENT, life: undefined });
    expect(seal(KEY, ABSENT)).to.have.length(8);
  });

  it('adds 8 bytes to the payload', () => {
    expect(seal(KEY, [1, 2])).to.have.length(8 + '[1,2]'.length);
  });

  it('keeps a life, for 12 bytes more', () => {
    const life = { freshUntilMs: 1_795_000_000_123.5, loadMs: 250 };
    for (const sample of [[1, 2], ABSENT, [1n]]) {
      const sealed = seal(KEY, sample, life);
      expect(sealed).to.have.length(12 + seal(KEY, sample).length);
      expect(open(KEY, sealed)).to.deep.equal({ ok: true, value: sample, life });
    }
  });

  it('keeps the fact that a value is unstorable', () => {
    expect(open(KEY, seal(KEY, UNSTORABLE))).to.deep.equal({ ok: true, value: UNSTORABLE, life: undefined });
  });

  it('throws for a value that would not come back identical', () => {
    expect(() => seal(KEY, { a: () => 1 })).to.throw('value.a is a function');
  });

  // A change here is a new format: raise FORMAT, or releases side by side read each other's entries wrongly.
  describe('the stored form, formats 1 and 2', () => {
    const GOLDEN: readonly (readonly [name: string, value: unknown, hex: string])[] = [
      ['absent', ABSENT, '67630161778e5ece'],
      [
        'JSON',
        { id: 42, tags: ['a', null, true, 1.5, '\ud83d\ude00\ud800'] },
        '6763016a849c9ec17b226964223a34322c2274616773223a5b2261222c6e756c6c2c747275652c312e352c22f09f98805c7564383030225d7d',
      ],
      [
        'JSON with Dates',
        [{ at: new Date('2026-11-01T12:00:00.000Z') }, new Date(0)],
        '676301646be751485b5b5b302c226174225d2c5b315d5d2c5b7b226174223a22323032362d31312d30315431323a30303a30302e3030305a227d2c22313937302d30312d30315430303a30303a30302e3030305a225d5d',
      ],
    ];
    it('of a value with a life is the same bytes as ever, both ways', () => {
      const life = { freshUntilMs: 1_795_000_000_123.5, loadMs: 250 };
      const hex = '6763026aba2d250a427a1ee565e7b800000000fa5b312c325d';
      expect(seal(KEY, [1, 2], life).toString('hex')).to.equal(hex);
      expect(open(KEY, Buffer.from(hex, 'hex'))).to.deep.equal({ ok: true, value: [1, 2], life });
    });

    for (const [name, golden, hex] of GOLDEN) {
      it(`of ${name} is the same bytes as ever, both ways`, () => {
        expect(seal(KEY, golden).toString('hex')).to.equal(hex);
        expect(open(KEY, Buffer.from(hex, 'hex'))).to.deep.equal({ ok: true, value: golden, life: undefined });
      });
    }

    it('of a rich value is readable as ever (V8’s output changes with Node)', () => {
      const opened = open(
        KEY,
        Buffer.from(
          '67630176eca29bb1ff0f3b22016e5a200000000000000000400000000000000022046c69737441034e00000000000000805f5c0a036162632400032201665c0808000000000000e03f3a06',
          'hex',
        ),
      );
      const golden = new Map<unknown, unknown>([
        ['n', 2n ** 70n],
        ['list', [-0, undefined, Buffer.from('abc')]],
        ['f', new Float64Array([0.5])],
      ]);
      expect(opened).to.deep.equal({ ok: true, value: golden, life: undefined });
    });
  });

  describe('refuses, with the whole message,', () => {
    const refusal = (bytes: Buffer, key = KEY): unknown => open(key, bytes);

    it('too few bytes as truncated', () => {
      expect(refusal(Buffer.from('gc\u0001'))).to.deep.equal({
        ok: false,
        reason: 'truncated',
        message:
          `The entry at ${KEY} must have at least 8 bytes, but has 3. ` +
          'The next read loads it again. If this recurs, find the other program that writes to this key.',
      });
    });

    it('the bytes of another writer as foreign', () => {
      expect(refusal(Buffer.from('{"id":42}'))).to.deep.equal({
        ok: false,
        reason: 'foreign',
        message:
          `The entry at ${KEY} must start with 6763, but starts with 7b226964. ` +
          'The next read loads it again. If this recurs, find the other program that writes to this key.',
      });
    });

    it('an entry of another format as format', () => {
      const bytes = seal(KEY, value);
      bytes[2] = 0;
      expect(refusal(bytes)).to.deep.equal({
        ok: false,
        reason: 'format',
        message:
          `The entry at ${KEY} must have format 1 or 2, but has format 0, in ${bytes.length} bytes. ` +
          'This is expected while two releases run side by side, and ends with the last entry of the other release.',
      });
    });

    it('a value stored under another key as checksum', () => {
      expect(refusal(seal(`${KEY}2`, [1]))).to.deep.equal({
        ok: false,
        reason: 'checksum',
        message:
          `The checksum of the entry at ${KEY} must be 2e27d079, the CRC-32 of its key and bytes, but is 22d35d1f. ` +
          'The next read loads it again. If this recurs, find the other program that writes to this key.',
      });
    });

    it('an absent entry of another key as checksum', () => {
      expect(refusal(seal(`${KEY}2`, ABSENT))).to.include({ ok: false, reason: 'checksum' });
    });

    it('an absent entry with a payload as payload', () => {
      expect(refusal(forge(KEY, 0x61, Buffer.from('1')))).to.deep.equal({
        ok: false,
        reason: 'payload',
        message:
          `The payload of the intact entry at ${KEY} (tag "a") must be readable, but got ` +
          'TypeError: An absent entry must have no payload, but got 1 bytes. ' +
          'This is expected while a newer Node or release runs beside this one; otherwise please report it.',
      });
    });

    it('a tag that this release does not know as payload', () => {
      expect(refusal(forge(KEY, 0x7a, Buffer.from('1')))).to.deep.equal({
        ok: false,
        reason: 'payload',
        message:
          `The payload of the intact entry at ${KEY} (tag "z") must be readable, but got ` +
          'TypeError: The tag of a payload must be j, d or v, but got "z". ' +
          'This is expected while a newer Node or release runs beside this one; otherwise please report it.',
      });
    });

    it("V8's format of a newer Node as payload", () => {
      const newer = forge(KEY, 0x76, Buffer.from('ff7f30', 'hex'));
      expect(refusal(newer)).to.include({ ok: false, reason: 'payload' });
    });
  });

  describe('against damage', () => {
    const samples = [ABSENT, { a: 1, b: 'text' }, value, [1n, Buffer.from('abc'), new Map([[1, -0]])]];
    const lives = [undefined, { freshUntilMs: 1_795_000_000_123.5, loadMs: 250 }];
    const sealedSamples = samples.flatMap((sample) => lives.map((life) => seal(KEY, sample, life)));

    it('finds every flipped bit', () => {
      for (const sealed of sealedSamples) {
        for (let bit = 0; bit < sealed.length * 8; bit++) {
          const damaged = Buffer.from(sealed);
          damaged[bit >> 3]! ^= 1 << (bit & 7);
          const reason = bit < 16 ? 'foreign' : bit < 24 ? 'format' : 'checksum';
          expect(open(KEY, damaged), `bit ${bit}`).to.include({ ok: false, reason });
        }
      }
    });

    it('finds every truncation, and extra bytes', () => {
      for (const sealed of sealedSamples) {
        const isLong = sealed[2] === 2;
        for (let length = 0; length < sealed.length; length++) {
          const reason = length < 8 ? 'truncated' : isLong && length < 20 ? 'format' : 'checksum';
          expect(open(KEY, sealed.subarray(0, length)), `${length} bytes`).to.include({ ok: false, reason });
        }
        expect(open(KEY, Buffer.concat([sealed, Buffer.from('x')]))).to.include({ ok: false, reason: 'checksum' });
      }
    });

    it('refuses any bytes, without throwing', () => {
      fc.assert(
        fc.property(fc.string(), fc.uint8Array({ maxLength: 200 }), (key, bytes) => {
          expect(open(key, Buffer.from(bytes))).to.have.property('ok', false);
        }),
        { seed: 1, numRuns: 5_000 },
      );
    });

    it('does not throw for any payload with a right checksum', () => {
      const tag = fc.constantFrom(...Buffer.from('ajdvz'));
      const payload = fc.oneof(
        fc.uint8Array({ maxLength: 100 }),
        fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.concat([Buffer.from('ff0f', 'hex'), bytes])),
        fc.json().map((text) => Buffer.from(text)),
        fc.tuple(fc.json(), fc.json()).map(([dates, text]) => Buffer.from(`[${dates},${text}]`)),
      );
      fc.assert(
        fc.property(tag, payload, (at, bytes) => {
          const opened = open(KEY, forge(KEY, at, bytes));
          if (!opened.ok) expect(opened.reason).to.equal('payload');
        }),
        { seed: 2, numRuns: 10_000 },
      );
    });
  });

  it('opens values in memory of their own', () => {
    const sealed = seal(KEY, [Buffer.from('abc'), new Float64Array([1.5])]);
    const opened = open(KEY, sealed);
    sealed.fill(0);
    expect(opened).to.deep.equal({ ok: true, value: [Buffer.from('abc'), new Float64Array([1.5])], life: undefined });
  });
});
