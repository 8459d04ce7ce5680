import { createHmac, hkdfSync, timingSafeEqual } from "node:crypto";
import type { TlsKey } from "./tls-key.js";

/** The one cipher suite there is: the hash of a key fixes its suite, and only SHA-256 keys are taken. */
export const TLS_CIPHERS = "TLS_AES_128_GCM_SHA256";

/** Longest identity that TLS libraries pass on. Two long NQNs can exceed it. */
export const LONGEST_IDENTITY = 256;

const KEY_BYTES = 32;
const HASH = "sha256";

/** Whom a TLS identity names, and the key that goes with it. */
export interface TlsPeer {
  readonly hostNqn: string;
  readonly subsystemNqn: string;
  readonly psk: Uint8Array;
}

/**
 * How HKDF labels are written. `standard` is HKDF-Expand-Label of RFC 8446. `unprefixed` is what libnvme did until
 * 2025 (no length bytes, length field in little-endian order): hosts with such a library derive another key from the same secret.
 */
export type KeyDerivation = "standard" | "unprefixed";

function expandLabel(key: Uint8Array, label: string, context: string, derivation: KeyDerivation): Uint8Array {
  const labelBytes = Buffer.from(`tls13 ${label}`);
  const contextBytes = Buffer.from(context);
  const info =
    derivation === "standard"
      ? [Buffer.of(0, KEY_BYTES, labelBytes.length), labelBytes, Buffer.of(contextBytes.length), contextBytes]
      : [Buffer.of(KEY_BYTES, 0), labelBytes, contextBytes];
  return new Uint8Array(hkdfSync(HASH, key, new Uint8Array(0), Buffer.concat(info), KEY_BYTES));
}

/** The retained PSK of a host (NVMe/TCP, "Retained PSK"). */
export function retainedPsk(key: TlsKey, hostNqn: string, derivation: KeyDerivation): Uint8Array {
  return key.bound ? expandLabel(key.key, "HostNQN", hostNqn, derivation) : key.key;
}

/** The digest that ends a version 1 identity: it tells keys of one pair of names apart. */
export function pskDigest(retained: Uint8Array, hostNqn: string, subsystemNqn: string): string {
  return createHmac(HASH, retained).update(`${hostNqn} ${subsystemNqn} NVMe-over-Fabrics`).digest("base64");
}

/** The identity that a host sends. `digest` left out: version 0. */
export function tlsIdentity(hostNqn: string, subsystemNqn: string, digest?: string): string {
  const names = `${hostNqn} ${subsystemNqn}`;
  return digest === undefined ? `NVMe0R01 ${names}` : `NVMe1R01 ${names} ${digest}`;
}

/** The key of the TLS session (NVMe/TCP, "TLS PSK and PSK Identity Derivation"). `context`: the identity, or `01 digest`. */
export function tlsPsk(retained: Uint8Array, context: string, derivation: KeyDerivation): Uint8Array {
  return expandLabel(retained, "nvme-tls-psk", context, derivation);
}

/**
 * The peer that `identity` names and its key, `undefined` when it is none of ours: another form, hash or digest.
 * `derivation` is for version 0 identities; version 1 tells by its digest which one the host used.
 */
export function tlsPeer(key: TlsKey, identity: string, derivation: KeyDerivation): TlsPeer | undefined {
  if (Buffer.byteLength(identity) > LONGEST_IDENTITY) return undefined;
  const [kind, hostNqn, subsystemNqn, digest, ...more] = identity.split(" ");
  if (!hostNqn || !subsystemNqn || more.length > 0) return undefined;
  if (kind === "NVMe0R01" && digest === undefined) {
    // The context has a length of one byte; a longer identity has no standard derivation.
    if (derivation === "standard" && Buffer.byteLength(identity) > 255) return undefined;
    const psk = tlsPsk(retainedPsk(key, hostNqn, derivation), identity, derivation);
    return { hostNqn, subsystemNqn, psk };
  }
  if (kind !== "NVMe1R01" || digest === undefined) return undefined;
  for (const way of ["standard", "unprefixed"] as const) {
    const retained = retainedPsk(key, hostNqn, way);
    if (sameDigest(digest, pskDigest(retained, hostNqn, subsystemNqn))) {
      // With a key that is used as it is, the digest is the same both ways.
      const chosen = key.bound ? way : derivation;
      return { hostNqn, subsystemNqn, psk: tlsPsk(retained, `01 ${digest}`, chosen) };
    }
  }
  return undefined;
}

/** Some hosts leave out the padding of base64. */
function sameDigest(given: string, expected: string): boolean {
  const [a, b] = [Buffer.from(given.replace(/=+$/, "")), Buffer.from(expected.replace(/=+$/, ""))];
  return a.length === b.length && timingSafeEqual(a, b);
}
