import { createRequire } from "node:module";
import { describe, expect, it } from "vitest";
import { loadKoffi } from "../../../src/host/native-helper.js";

const installed = process.platform === "linux" && process.env["ZCOW_NO_NATIVE"] !== "1";

describe.skipIf(!installed)("loadKoffi", () => {
  it("gives the same functions as the package, whichever comes first", () => {
    const direct: unknown = loadKoffi();
    const require = createRequire(import.meta.url);
    const fromPackage: unknown = require("koffi");
    for (const name of ["address", "errno", "version"]) {
      expect(Reflect.get(direct as object, name)).toBe(Reflect.get(fromPackage as object, name));
    }
  });

  it("calls functions of the C library, declared before and after the package was loaded", () => {
    const koffi = loadKoffi();
    expect(koffi.load(null).func("getpid", "int", [])()).toBe(process.pid);
    createRequire(import.meta.url)("koffi");
    expect(koffi.load(null).func("getpid", "int", [])()).toBe(process.pid);
  });
});
