import { describe, expect, test } from "vitest";
import { NVME_MANUAL } from "../../../src/cli/commands/nvme.js";
import { optionsOf } from "../../../src/cli/manual.js";
import { accessOptions, addressOption, limitOptions, tlsOptions, uuidOptions } from "../../../src/cli/nvme-options.js";
import { type ParsedArguments, parseArguments } from "../../../src/cli/options.js";
import { secretText } from "../../support/chap-host.js";

const parsed = (...args: string[]): ParsedArguments => parseArguments(args, optionsOf(NVME_MANUAL));
const HOST = "nqn.2026-01.test:host";

describe("the options of zcow nvme", () => {
  test.each([
    [undefined, "127.0.0.1", 4420],
    ["5000", "127.0.0.1", 5000],
    ["0.0.0.0", "0.0.0.0", 4420],
    ["disk.example:1", "disk.example", 1],
    ["[::1]:7", "::1", 7],
    ["[::]", "::", 4420],
  ])("--listen %s is host %s and port %i", (text, host, port) => {
    expect(addressOption("listen", text, 4420)).toEqual({ host, port });
  });

  test.each(["::1", "1.2.3.4:x", "1.2.3.4:70000", "", "a:1:2"])("--listen '%s' is refused", (text) => {
    expect(() => addressOption("listen", text, 4420)).toThrow("--listen");
  });

  test("nobody is listed, so all may come", () => {
    expect(accessOptions(parsed("image"))).toBe("any");
  });

  test("a common secret is for hosts without their own", () => {
    const secret = secretText("DHHC-1", 1);
    const access = accessOptions(parsed("--host", HOST, "--host", `${HOST}2,dhchap=${secret}`, "image"));
    if (access === "any") throw new Error("hosts were listed");
    expect([access.get(HOST)?.authenticate, typeof access.get(`${HOST}2`)?.authenticate]).toEqual([
      undefined,
      "function",
    ]);
    const both = accessOptions(parsed("--host", HOST, "--dhchap-secret", secret, "image"));
    expect(both === "any" ? undefined : typeof both.get(HOST)?.authenticate).toBe("function");
  });

  test("a secret without a host, and a controller's without a host's, are refused", () => {
    const secret = secretText("DHHC-1", 1);
    expect(() => accessOptions(parsed("--dhchap-secret", secret, "image"))).toThrow("--host");
    expect(() => accessOptions(parsed("--host", `${HOST},dhchap-ctrl=${secret}`, "image"))).toThrow("for the host");
  });

  test("a TLS key of one host is not another's", () => {
    const key = secretText("NVMeTLSkey-1", 1);
    const own = tlsOptions(parsed("--host", `${HOST},tls-psk=${key}`, "image"));
    expect([own?.keyOf(HOST)?.key.length, own?.keyOf(`${HOST}2`)]).toEqual([32, undefined]);
    const common = tlsOptions(parsed("--tls-psk", key, "--tls-compat", "image"));
    expect([common?.keyOf("nqn.anyone")?.bound, common?.derivation]).toEqual([true, "unprefixed"]);
    expect(tlsOptions(parsed("image"))).toBeUndefined();
  });

  test("appends follow a small transfer limit unless they have their own", () => {
    expect(limitOptions(parsed("--mdts", "64k"))).toEqual({ transferBytes: 65536, appendBytes: 65536 });
    expect(limitOptions(parsed("--mdts", "1M"))).toEqual({ transferBytes: 1048576 });
    expect(() => limitOptions(parsed("--queues", "many"))).toThrow("--queues");
  });

  test("there are no more UUIDs than images", () => {
    const uuid = "00112233-4455-6677-8899-aabbccddeeff";
    expect(uuidOptions(parsed("--uuid", uuid, "a", "b"))).toHaveLength(1);
    expect(() => uuidOptions(parsed("--uuid", uuid, "--uuid", uuid, "a"))).toThrow("2 --uuid for 1");
  });
});
