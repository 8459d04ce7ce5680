import { FOLDERS, fileFactory } from "./file-fixtures.js";
import { describeStorageContract } from "./storage-suite.js";

for (const folder of FOLDERS) {
  for (const io of ["auto", "sync", "pool"] as const) {
    describeStorageContract(`a file in ${folder} with io ${io}`, fileFactory(folder, { io }));
  }
  describeStorageContract(`a file in ${folder} with direct I/O`, fileFactory(folder, { direct: true }));
}
