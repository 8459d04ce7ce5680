import { pinMemory } from "./host-memory.js";

/** `npm run bench -- memory GIB`: keeps that much memory of a virtual machine from going back to its host; 0 lets it go again. */

const gib = Number(process.argv[2]);
if (!Number.isInteger(gib) || gib < 0) {
  console.error("usage: npm run bench -- memory GIB   (whole GiB that are free now; 0 undoes it)");
  process.exit(2);
}
pinMemory(gib);
console.log(gib === 0 ? "no memory is pinned" : `${gib} GiB of memory stay with this machine until "memory 0"`);
