import { describe, expect, test } from "vitest";
import { parseTlsKey } from "../../../../../src/servers/nvme-tcp/security/tls-key.js";
import { secretText } from "../../../../support/chap-host.js";

/** The key that public examples of the format use. */
const KEY = Buffer.from("5512DBB6737D0106F65975B773DFB011FFC344BCF442E2DD6D8BC4870B5D5B03", "hex");
const TEXT = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";

describe("the text of a TLS key", () => {
  test("a published example gives its key", () => {
    expect(parseTlsKey(TEXT)).toEqual({ bound: true, key: Uint8Array.from(KEY) });
  });

  test("blanks and a line end around it do not matter", () => {
    expect(parseTlsKey(` ${TEXT}\n`).bound).toBe(true);
  });

  test("a key with hash 00 is used as it is", () => {
    expect(parseTlsKey(TEXT.replace(":01:", ":00:")).bound).toBe(false);
  });

  test("a 48-byte key is refused with the reason", () => {
    expect(() => parseTlsKey(secretText("NVMeTLSkey-1", 7, "02"))).toThrow("only 32-byte keys");
  });

  test.each([
    ["another kind", TEXT.replace("NVMeTLSkey", "DHHC"), "does not start with"],
    ["an unknown hash", TEXT.replace(":01:", ":04:"), "hash other than"],
    ["one changed character", TEXT.replace("VRLb", "VRLc"), "checksum"],
    ["the last colon missing", TEXT.slice(0, -1), "last colon"],
    ["something behind it", `${TEXT}more`, "last colon"],
    ["characters that are not base64", TEXT.replace("VRLb", "VR!b"), "base64"],
    ["a key of the wrong length for its hash", TEXT.replace(":01:", ":02:"), "32 bytes"],
    ["no key", "NVMeTLSkey-1:01::", "base64"],
    ["a text without end", `NVMeTLSkey-1:01:${"A".repeat(10_000)}:`, "characters long"],
  ])("%s is refused, and the text is not repeated", (_what, text, why) => {
    const refusal = (): unknown => parseTlsKey(text);
    expect(refusal).toThrow(why);
    try {
      refusal();
    } catch (error) {
      expect(JSON.stringify(error) + String(error)).not.toContain(text.length > 60 ? text.slice(16, 40) : "\0");
    }
  });
});
