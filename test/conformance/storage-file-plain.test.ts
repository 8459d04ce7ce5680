import { expect, it } from "vitest";
import { nativeCalls } from "../../src/host/native.js";
import { FOLDERS, fileFactory } from "./file-fixtures.js";
import { describeStorageContract } from "./storage-suite.js";

process.env["ZCOW_NO_NATIVE"] = "1";

it("runs without the native helper", () => {
  expect(nativeCalls()).toBeUndefined();
});

for (const folder of FOLDERS) {
  for (const io of ["auto", "sync", "pool"] as const) {
    describeStorageContract(`a file in ${folder} with io ${io}, without native helper,`, fileFactory(folder, { io }));
  }
  describeStorageContract(
    `a file in ${folder} with direct I/O, without native helper,`,
    fileFactory(folder, { direct: true }),
  );
}
