import { describe, expect, test } from "vitest";
import { parseTlsKey } from "../../../../../src/servers/nvme-tcp/security/tls-key.js";
import {
  pskDigest,
  retainedPsk,
  tlsIdentity,
  tlsPeer,
  tlsPsk,
} from "../../../../../src/servers/nvme-tcp/security/tls-psk.js";

const HOST = "nqn.psk-test-host";
const SUBSYSTEM = "nqn.psk-test-subsys";
const BODY = "VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ";
const SECRET = parseTlsKey(`NVMeTLSkey-1:01:${BODY}:`);
const PLAIN_SECRET = parseTlsKey(`NVMeTLSkey-1:00:${BODY}:`);
/** What nvme-cli's library publishes for this key and these names. */
const PUBLISHED_DIGEST = "iSbjiStwJ/1TrTvDlt2fjFmzvsytOJelidNnA+X5lEU=";

describe("TLS keys", () => {
  test("the digest of a published example comes out, derived as its time did it", () => {
    const digests = (["standard", "unprefixed"] as const).map((way) =>
      pskDigest(retainedPsk(SECRET, HOST, way), HOST, SUBSYSTEM),
    );
    expect(digests).toContain(PUBLISHED_DIGEST);
    expect(new Set(digests).size).toBe(2);
  });

  test("a host's version 0 identity gets the key of the way that was asked for", () => {
    const identity = tlsIdentity(HOST, SUBSYSTEM);
    expect(identity).toBe(`NVMe0R01 ${HOST} ${SUBSYSTEM}`);
    for (const way of ["standard", "unprefixed"] as const) {
      const peer = tlsPeer(SECRET, identity, way);
      expect(peer).toEqual({
        hostNqn: HOST,
        subsystemNqn: SUBSYSTEM,
        psk: tlsPsk(retainedPsk(SECRET, HOST, way), identity, way),
      });
      expect(peer?.psk).toHaveLength(32);
    }
  });

  test("a version 1 identity says by its digest which way its key was derived, whatever was asked for", () => {
    for (const way of ["standard", "unprefixed"] as const) {
      const retained = retainedPsk(SECRET, HOST, way);
      const digest = pskDigest(retained, HOST, SUBSYSTEM);
      const expected = tlsPsk(retained, `01 ${digest}`, way);
      for (const configured of ["standard", "unprefixed"] as const) {
        expect(tlsPeer(SECRET, tlsIdentity(HOST, SUBSYSTEM, digest), configured)?.psk).toEqual(expected);
      }
    }
  });

  test("a digest without the padding of base64 is the same digest", () => {
    const digest = PUBLISHED_DIGEST.replace("=", "");
    expect(tlsPeer(SECRET, tlsIdentity(HOST, SUBSYSTEM, digest), "standard")).toBeDefined();
  });

  test("keys differ by host, and not with a secret that is used as it is", () => {
    const way = "standard";
    expect(retainedPsk(SECRET, HOST, way)).not.toEqual(retainedPsk(SECRET, `${HOST}2`, way));
    expect(retainedPsk(PLAIN_SECRET, HOST, way)).toEqual(retainedPsk(PLAIN_SECRET, `${HOST}2`, way));
  });

  test.each([
    ["no names", "NVMe0R01"],
    ["one name", `NVMe0R01 ${HOST}`],
    ["SHA-384", `NVMe0R02 ${HOST} ${SUBSYSTEM}`],
    ["a generated key", `NVMe0G01 ${HOST} ${SUBSYSTEM}`],
    ["a wrong digest", tlsIdentity(HOST, SUBSYSTEM, PUBLISHED_DIGEST.replace("iS", "iT"))],
    ["version 1 without a digest", `NVMe1R01 ${HOST} ${SUBSYSTEM}`],
    ["a word too many", `NVMe0R01 ${HOST} ${SUBSYSTEM} x`],
    ["a length of more than 256 bytes", tlsIdentity(`nqn.${"h".repeat(120)}`, `nqn.${"s".repeat(140)}`)],
    ["nothing", ""],
  ])("an identity with %s has no key", (_what, identity) => {
    expect(tlsPeer(SECRET, identity, "standard")).toBeUndefined();
  });
});
