import { randomBytes } from "node:crypto";
import { AesXts } from "../src/codec/cipher/aes-xts.js";
import { plain64Iv } from "../src/codec/cipher/sector-iv.js";

/** How fast LUKS encrypts and decrypts, by CPU time, which other load on the machine hardly changes. */

const KIB = 1024;
const MEGABYTE = 1e6;
const TOTAL = 512 * KIB * KIB;
/** Goal for requests of any size, in megabytes per second of one core. */
const GOAL = 500;

type Direction = "encrypt" | "decrypt";

function megabytesPerSecond(size: number, direction: Direction): number {
  const cipher = new AesXts(randomBytes(64), plain64Iv());
  const data = new Uint8Array(randomBytes(size));
  const run = (bytes: number): void => {
    for (let at = 0; at < bytes; at += size) {
      if (direction === "encrypt") cipher.encrypt(at / 512, data);
      else cipher.decrypt(at / 512, data);
    }
  };
  run(TOTAL / 8);
  const before = process.cpuUsage();
  run(TOTAL);
  const { user, system } = process.cpuUsage(before);
  return TOTAL / MEGABYTE / ((user + system) / 1e6);
}

console.log("| AES-256-XTS, request | encrypt MB/s per core | decrypt MB/s per core | goal |\n|---|---|---|---|");
let missed = false;
for (const size of [4 * KIB, 64 * KIB, 1024 * KIB]) {
  const [encrypt, decrypt] = [megabytesPerSecond(size, "encrypt"), megabytesPerSecond(size, "decrypt")];
  missed ||= Math.min(encrypt, decrypt) < GOAL;
  console.log(`| ${size / KIB} KiB | ${encrypt.toFixed(0)} | ${decrypt.toFixed(0)} | ${GOAL} |`);
}
process.exitCode = missed ? 1 : 0;
