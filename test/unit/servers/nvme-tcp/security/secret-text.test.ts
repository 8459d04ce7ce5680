import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import { parseSecret } from "../../../../../src/servers/nvme-tcp/security/secret-text.js";

/** The key that public examples of the format use. */
const KEY = Buffer.from("5512DBB6737D0106F65975B773DFB011FFC344BCF442E2DD6D8BC4870B5D5B03", "hex");
const TEXT = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";

function secretText(kind: string, hh: string, key: Uint8Array): string {
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(key));
  return `${kind}:${hh}:${Buffer.concat([key, crc]).toString("base64")}:`;
}

describe("the text of a secret", () => {
  test("a published example gives its key", () => {
    expect(parseSecret(TEXT, "NVMeTLSkey-1")).toEqual({ hash: "sha256", key: Uint8Array.from(KEY) });
  });

  test("blanks and a line end around it do not matter", () => {
    expect(parseSecret(` ${TEXT}\n`, "NVMeTLSkey-1").hash).toBe("sha256");
  });

  test.each([
    ["00", 32, "none"],
    ["00", 48, "none"],
    ["00", 64, "none"],
    ["01", 32, "sha256"],
    ["02", 48, "sha384"],
    ["03", 64, "sha512"],
  ])("hash %s with a key of %i bytes is %s", (hh, bytes, hash) => {
    const key = new Uint8Array(bytes).fill(7);
    expect(parseSecret(secretText("DHHC-1", hh, key), "DHHC-1")).toEqual({ hash, key });
  });

  test.each([
    ["another kind", TEXT.replace("NVMeTLSkey", "DHHC"), "does not start with"],
    ["an unknown hash", TEXT.replace(":01:", ":04:"), "hash other than"],
    ["one changed character", TEXT.replace("VRLb", "VRLc"), "checksum"],
    ["the last colon missing", TEXT.slice(0, -1), "last colon"],
    ["something behind it", `${TEXT}more`, "last colon"],
    ["characters that are not base64", TEXT.replace("VRLb", "VR!b"), "base64"],
    ["a key of the wrong length", secretText("NVMeTLSkey-1", "01", new Uint8Array(31)), "31 bytes"],
    ["no key", "NVMeTLSkey-1:01::", "base64"],
    ["a text without end", `NVMeTLSkey-1:01:${"A".repeat(10_000)}:`, "characters long"],
  ])("%s is refused, and the text is not repeated", (_what, text, why) => {
    const refusal = (): unknown => parseSecret(text, "NVMeTLSkey-1");
    expect(refusal).toThrow(why);
    try {
      refusal();
    } catch (error) {
      expect(JSON.stringify(error) + String(error)).not.toContain(text.length > 60 ? text.slice(16, 40) : "\0");
    }
  });
});
