import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, expect, it } from "vitest";
import { nativeCalls } from "../../src/host/native.js";
import { openFileStorage } from "../../src/storage/file-storage.js";
import { describeWithStock, runTool, type ToolResult } from "../support/stock-tools.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const path = temporaryFolder();
const hint = (): string => `Is another process using the image [${path("disk")}]?`;

describeWithStock("image locks shared with the stock tools", () => {
  const itLocks = it.skipIf(nativeCalls() === undefined);
  const holders: ChildProcess[] = [];

  afterEach(async () => {
    for (const holder of holders.splice(0)) {
      const gone = once(holder, "exit");
      holder.stdin?.end();
      await gone;
    }
  });

  const stock = (...args: string[]): Promise<ToolResult> => runTool(args[0] ?? "", args.slice(1));

  /** Stock qemu-io that has the image open until the test is over. */
  async function stockHolds(...options: string[]): Promise<void> {
    const holder = spawn("qemu-io", [...options, "-f", "qcow2", path("disk")], { stdio: ["pipe", "pipe", "inherit"] });
    holders.push(holder);
    holder.stdin?.write("length\n");
    let printed = "";
    for await (const text of holder.stdout ?? []) {
      printed += String(text);
      if (printed.includes("1 MiB")) return;
    }
    throw new Error(`qemu-io ended: ${printed}`);
  }

  async function makeImage(): Promise<void> {
    expect((await stock("qemu-img", "create", "-q", "-f", "qcow2", path("disk"), "1M")).code).toBe(0);
  }

  itLocks("keep stock out while zcow writes", async () => {
    await makeImage();
    const storage = await openFileStorage(path("disk"), { writable: true });
    const writer = await stock("qemu-io", "-f", "qcow2", "-c", "write 0 512", path("disk"));
    expect([writer.code, writer.stderr]).toEqual([
      1,
      `qemu-io: can't open device ${path("disk")}: Failed to get "write" lock\n${hint()}\n`,
    ]);
    const reader = await stock("qemu-img", "info", path("disk"));
    expect(reader.stderr).toContain('Failed to get shared "write" lock');
    expect((await stock("qemu-img", "info", "-U", path("disk"))).code).toBe(0);
    await storage.close();
    expect((await stock("qemu-io", "-f", "qcow2", "-c", "write 0 512", path("disk"))).code).toBe(0);
  });

  itLocks("keep stock writers but not stock readers out while zcow reads", async () => {
    await makeImage();
    const storage = await openFileStorage(path("disk"));
    expect((await stock("qemu-io", "-f", "qcow2", "-c", "write 0 512", path("disk"))).stderr).toContain(
      'Failed to get "write" lock',
    );
    expect((await stock("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", path("disk"))).code).toBe(0);
    await storage.close();
  });

  itLocks("keep zcow out while stock writes, with the text that stock prints", async () => {
    await makeImage();
    await stockHolds();
    await expect(openFileStorage(path("disk"), { writable: true })).rejects.toMatchObject({
      code: "LOCKED",
      stockText: `Failed to get "write" lock\n${hint()}`,
    });
    await expect(openFileStorage(path("disk"))).rejects.toMatchObject({
      stockText: `Failed to get shared "write" lock\n${hint()}`,
    });
    await expect(openFileStorage(path("disk"), { lock: { use: "inspect" } })).rejects.toMatchObject({ code: "LOCKED" });
    await (await openFileStorage(path("disk"), { forceShare: true })).close();
  });

  itLocks("keep zcow from writing but not from reading while stock reads", async () => {
    await makeImage();
    await stockHolds("-r");
    await expect(openFileStorage(path("disk"), { writable: true })).rejects.toMatchObject({ code: "LOCKED" });
    await (await openFileStorage(path("disk"))).close();
    await (await openFileStorage(path("disk"), { lock: { use: "inspect" } })).close();
  });
});
