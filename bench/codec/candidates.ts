/**
 * Every codec that was considered for values, as `encode` to bytes and `decode` from them. A candidate whose
 * package is not installed is left out, so that the library type-checks without its rivals.
 */
import { deserialize, serialize } from 'node:v8';

import { decode, encode } from '../../lib/codec/codec.js';
import { classify } from '../../lib/codec/encodable.js';

export interface Candidate {
  readonly name: string;
  encode(value: unknown): Buffer;
  decode(bytes: Buffer): unknown;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any
const load = async (name: string): Promise<any> => {
  try {
    return await import(name);
  } catch {
    console.error(`${name} is not installed: left out.`);
    return undefined;
  }
};

const json = {
  encode: (value: unknown) => Buffer.from(JSON.stringify(value)),
  decode: (bytes: Buffer): unknown => JSON.parse(bytes.toString()),
};

export async function candidates(): Promise<Candidate[]> {
  const all: Candidate[] = [
    { name: 'JSON', ...json },
    { name: 'node:v8', encode: (value) => serialize(value), decode: (bytes) => deserialize(bytes) },
  ];
  const devalue = await load('devalue');
  if (devalue) {
    all.push({
      name: 'devalue 6',
      encode: (value) => Buffer.from(devalue.stringify(value)),
      decode: (bytes) => devalue.parse(bytes.toString()),
    });
  }
  const superjson = (await load('superjson'))?.default;
  if (superjson) {
    all.push({
      name: 'superjson 2',
      encode: (value) => Buffer.from(superjson.stringify(value)),
      decode: (bytes) => superjson.parse(bytes.toString()),
    });
  }
  const msgpackr = await load('msgpackr');
  if (msgpackr) {
    const packr = new msgpackr.Packr({ structuredClone: true, moreTypes: true, copyBuffers: true });
    all.push({
      name: 'msgpackr 2',
      encode: (value) => packr.pack(value),
      decode: (bytes) => packr.unpack(bytes),
    });
  }
  const cbor = await load('cbor-x');
  if (cbor) {
    const encoder = new cbor.Encoder({ structuredClone: true, copyBuffers: true });
    all.push({
      name: 'cbor-x 1',
      encode: (value) => encoder.encode(value),
      decode: (bytes) => encoder.decode(bytes),
    });
  }
  const seroval = await load('seroval');
  if (seroval) {
    all.push({
      name: 'seroval 1',
      encode: (value) => Buffer.from(JSON.stringify(seroval.toJSON(value))),
      decode: (bytes) => seroval.fromJSON(JSON.parse(bytes.toString())),
    });
  }
  all.push(
    guarded(
      'guard, JSON or v8',
      (value) => serialize(value),
      (bytes) => decode('v', bytes),
    ),
  );
  if (devalue) {
    const reducers = { Buffer: (value: unknown) => Buffer.isBuffer(value) && [value.toString('base64')] };
    const revivers = { Buffer: ([text]: [string]) => Buffer.from(text, 'base64') };
    all.push(
      guarded(
        'guard, JSON or devalue',
        (value) => Buffer.from(devalue.stringify(value, reducers)),
        (bytes) => devalue.parse(bytes.toString(), revivers),
      ),
    );
  }
  if (msgpackr) {
    const packr = new msgpackr.Packr({ structuredClone: true, moreTypes: true, copyBuffers: true });
    all.push(
      guarded(
        'guard, JSON or msgpackr',
        (value) => packr.pack(value),
        (bytes) => packr.unpack(bytes),
      ),
    );
  }
  all.push({ name: 'lib/codec/codec.ts', encode: (value) => tagged(encode(value)), decode: untagged });
  return all;
}

/** Refuses what the walk refuses, writes JSON where it is exact, and gives the rest to `rich`. */
function guarded(name: string, rich: (value: unknown) => Buffer, back: (bytes: Buffer) => unknown): Candidate {
  return {
    name,
    encode(value) {
      const needs = classify(value);
      if (!needs.rich && needs.dates.length === 0) return tagged({ tag: 'j', bytes: json.encode(value) });
      return tagged({ tag: 'r', bytes: rich(value) });
    },
    decode: (bytes) => (bytes[0] === 0x6a ? json.decode(bytes.subarray(1)) : back(bytes.subarray(1))),
  };
}

function tagged({ tag, bytes }: { tag: string; bytes: Buffer }): Buffer {
  const all = Buffer.allocUnsafe(1 + bytes.length);
  all[0] = tag.charCodeAt(0);
  all.set(bytes, 1);
  return all;
}

function untagged(bytes: Buffer): unknown {
  return decode(String.fromCharCode(bytes[0]!), bytes.subarray(1));
}
