import { readFile, writeFile } from "node:fs/promises";
import { CRASH_PASSPHRASE } from "./crash-geometries.js";
import { INCOMPATIBLE_DIRTY, ReferenceImage } from "./reference-image.js";
import { qemuImg } from "./stock-tools.js";

/** Nothing but leaks. An image with stale refcounts says so, and the stock tool mends it when it opens it for writing. */
export async function stockCheck(path: string, file: Uint8Array, where: string): Promise<void> {
  await writeFile(path, file);
  const dirty = (new ReferenceImage(await readFile(path)).incompatible & INCOMPATIBLE_DIRTY) !== 0n;
  const encrypted = new ReferenceImage(file).cryptMethod !== 0;
  const secret = ["--object", `secret,id=s,data=${CRASH_PASSPHRASE}`, "--image-opts"];
  const image = encrypted
    ? [...secret, `driver=qcow2,encrypt.key-secret=s,file.filename=${path}`]
    : ["-f", "qcow2", path];
  if (dirty) await qemuImg(["check", "-q", "-r", "all", ...image]);
  const result = await qemuImg(["check", ...image]);
  if (result.code !== 0 && result.code !== 3)
    throw new Error(`${where}: qemu-img check says ${result.stdout}${result.stderr}`);
}
