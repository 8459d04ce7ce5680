import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect } from "vitest";
import { parseSize } from "../../src/base/size-text.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import { parseCreateOptions } from "../../src/formats/qcow2/create-options-parse.js";
import { openFileStorage } from "../../src/storage/file-storage.js";
import { qemuImg, temporaryDirectory } from "./stock-tools.js";

const run = promisify(execFile);

/** Makes an image with the stock tool and with zcow, and compares every byte of both files and their lengths. */
export async function expectSameImage(options: string, size: string): Promise<void> {
  const folder = temporaryDirectory();
  const stock = join(folder, "stock.qcow2");
  const ours = join(folder, "ours.qcow2");
  const made = await qemuImg(["create", "-q", "-f", "qcow2", ...(options === "" ? [] : ["-o", options]), stock, size]);
  expect(made.stderr + made.stdout).toBe("");
  const storage = await openFileStorage(ours, { writable: true, create: true });
  await createQcow2(storage, { ...(options === "" ? {} : parseCreateOptions(options)), size: parseSize(size) });
  await storage.close();
  const difference = await run("cmp", [ours, stock]).then(
    () => "none",
    (error: { stdout?: string; message: string }) => error.stdout ?? error.message,
  );
  expect(difference, `options '${options}', size ${size}`).toBe("none");
}
