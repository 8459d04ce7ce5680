import { createCipheriv, createHash, randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { AesCbc } from "../../../../src/codec/cipher/aes-cbc.js";
import { AesXts } from "../../../../src/codec/cipher/aes-xts.js";
import type { SectorCipher } from "../../../../src/codec/cipher/sector-cipher.js";
import { essivIv, plain64Iv, plainIv } from "../../../../src/codec/cipher/sector-iv.js";

/** The runtime's own modes, one cipher object per sector. */
function oneByOne(name: string, key: Uint8Array, iv: (sector: number) => Uint8Array, first: number, data: Uint8Array) {
  const sectors: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += 512) {
    const cipher = createCipheriv(name, key, iv(first + at / 512)).setAutoPadding(false);
    sectors.push(cipher.update(data.subarray(at, at + 512)));
  }
  return Buffer.concat(sectors);
}

function little64(sector: number): Buffer {
  const iv = Buffer.alloc(16);
  iv.writeBigUInt64LE(BigInt(sector));
  return iv;
}

function little32(sector: number): Buffer {
  return little64(Number(BigInt(sector) & 0xffff_ffffn));
}

function essiv(key: Uint8Array, hash: string): (sector: number) => Buffer {
  const salt = createHash(hash).update(key).digest();
  return (sector) =>
    createCipheriv(`aes-${salt.length * 8}-ecb`, salt, null)
      .setAutoPadding(false)
      .update(little64(sector));
}

const key64 = randomBytes(64);
const key32 = key64.subarray(0, 32);
const key16 = key64.subarray(0, 16);

interface Case {
  readonly name: string;
  readonly cipher: SectorCipher;
  readonly expected: (first: number, data: Uint8Array) => Uint8Array;
}

const CASES: readonly Case[] = [
  {
    name: "aes-256-xts, plain64",
    cipher: new AesXts(key64, plain64Iv()),
    expected: (first, data) => oneByOne("aes-256-xts", key64, little64, first, data),
  },
  {
    name: "aes-128-xts, plain",
    cipher: new AesXts(key32, plainIv()),
    expected: (first, data) => oneByOne("aes-128-xts", key32, little32, first, data),
  },
  {
    name: "aes-256-xts, essiv:sha256",
    cipher: new AesXts(key64, essivIv(key64, "sha256")),
    expected: (first, data) => oneByOne("aes-256-xts", key64, essiv(key64, "sha256"), first, data),
  },
  {
    name: "aes-256-cbc, essiv:sha256",
    cipher: new AesCbc(key32, essivIv(key32, "sha256")),
    expected: (first, data) => oneByOne("aes-256-cbc", key32, essiv(key32, "sha256"), first, data),
  },
  {
    name: "aes-128-cbc, plain64",
    cipher: new AesCbc(key16, plain64Iv()),
    expected: (first, data) => oneByOne("aes-128-cbc", key16, little64, first, data),
  },
];

describe.each(CASES)("$name", ({ cipher, expected }) => {
  test.each([1, 2, 129, 300])("%i sectors are encrypted as the runtime's own mode encrypts each", (count) => {
    for (const first of [0, 1, 2 ** 32 - 1, 2 ** 40 + 5]) {
      const data = randomBytes(count * 512);
      const before = Buffer.from(data);
      const encrypted = cipher.encrypt(first, data);
      expect(Buffer.compare(encrypted, expected(first, data))).toBe(0);
      expect(Buffer.compare(data, before), "the input stays as it is").toBe(0);
      cipher.decrypt(first, encrypted);
      expect(Buffer.compare(encrypted, data)).toBe(0);
    }
  });

  test("buffers may begin anywhere in memory", () => {
    const data = randomBytes(5 * 512);
    for (const shift of [1, 2, 3]) {
      const shifted = new Uint8Array(data.length + 8).subarray(shift, shift + data.length);
      shifted.set(data);
      const encrypted = cipher.encrypt(7, shifted);
      expect(Buffer.compare(encrypted, expected(7, data))).toBe(0);
      shifted.set(encrypted);
      cipher.decrypt(7, shifted);
      expect(Buffer.compare(shifted, data)).toBe(0);
    }
  });
});
