import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { ChapCrypto } from "../../../protocols/nvme/auth/chap-crypto.js";
import { DhExchange } from "./dh-groups.js";

/**
 * The cryptography of DH-HMAC-CHAP as Node has it. Exchanges are computed at once, in at most some 20 ms for the
 * largest group: with the short exponents that RFC 7919 allows they are not worth a thread.
 */
export const nodeChapCrypto: ChapCrypto = {
  digest: (hash, data) => createHash(hash).update(data).digest(),
  hmac: (hash, key, data) => createHmac(hash, key).update(data).digest(),
  randomBytes: (length) => Uint8Array.from(randomBytes(length)),
  equal: (a, b) => a.length === b.length && timingSafeEqual(a, b),
  generateKeyPair: (group) => {
    const exchange = new DhExchange(group);
    return { publicValue: exchange.publicValue, secretWith: (peerValue) => exchange.sharedSecret(peerValue) };
  },
};
