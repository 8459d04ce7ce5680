import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { endServers, serve } from "../support/serving-process.js";
import { expectCleanCheck, findTool, qemuImg, runTool } from "../support/stock-tools.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { BuiltCommand } from "./built-command.js";

const missing = ["qemu-img", "qemu-nbd", "nbdsh"].filter((tool) => findTool(tool) === undefined);
if (missing.length > 0) console.warn(`tests with nbdsh are skipped: ${missing.join(", ")} not found`);

describe.skipIf(missing.length > 0 || process.env["ZCOW_WITHOUT_STOCK_TOOLS"] === "1")("nbdsh as a client", () => {
  const at = temporaryFolder();
  let command: BuiltCommand;

  beforeAll(async () => {
    command = await BuiltCommand.build(at("build"));
  });

  afterEach(endServers);

  /** What a script of the folder `nbdsh` prints when it talks to the server at `socket`. */
  async function said(script: string, socket: string): Promise<string> {
    const source = readFileSync(join(import.meta.dirname, "nbdsh", script), "utf8");
    // Debian's library is for Debian's Python; there may be others in front of it.
    const path = `PATH=/usr/bin:${process.env["PATH"]}`;
    const uri = `uri = "nbd+unix:///?socket=${at(socket)}"`;
    const { code, stdout, stderr } = await runTool("env", [path, "nbdsh", "-c", uri, "-c", "-"], source);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    return stdout;
  }

  it.each(["4M", "70000000"])("gets the stock server's answer to every request on a disk of %s", async (size) => {
    for (const name of ["own", "stock"]) {
      await qemuImg(["create", "-q", "-f", "qcow2", at(`${name}-${size}.qcow2`), size]);
    }
    const own = await serve(
      command.spawn(["nbd", "-k", at("own.sock"), "-e", "1", "-f", "qcow2", at(`own-${size}.qcow2`)]),
    );
    const stock = await serve(
      spawn("qemu-nbd", ["-t", "--discard=unmap", "-k", at("stock.sock"), "-f", "qcow2", at(`stock-${size}.qcow2`)]),
      at("stock.sock"),
    );
    const lines = await said("every-request.py", "own.sock");
    expect(lines).toBe(await said("every-request.py", "stock.sock"));
    expect(lines.split("\n").length).toBeGreaterThan(15);
    await own.end();
    await stock.end();
    await expectCleanCheck(at(`own-${size}.qcow2`));
    const both = await qemuImg(["compare", at(`own-${size}.qcow2`), at(`stock-${size}.qcow2`)]);
    expect(both.stdout).toContain("Images are identical");
  });

  it("is held to the rules of zones, and sees them change", async () => {
    const image = at("zoned.qcow2");
    const zones = "zone.mode=host-managed,zone.size=1M,zone.capacity=512K,zone.conventional_zones=1";
    expect((await command.zcow(at("."), ["create", "-q", "-f", "qcow2", "-o", zones, image, "8M"])).code).toBe(0);
    const reading = await serve(command.spawn(["nbd", "-k", at("reading.sock"), "-f", "qcow2", image]));
    const refused = await said("zoned-writes.py", "reading.sock");
    await reading.end();
    const changes = refused.split("\n").filter((line) => /^(?!flush).*: /.test(line));
    expect(changes.length).toBe(11);
    expect(changes.every((line) => line.endsWith(": EPERM"))).toBe(true);
    expect(refused).toContain("[0, 0, 0, 0, 0]");
    const writing = await serve(
      command.spawn(["nbd", "-k", at("writing.sock"), "--zoned-writes", "-f", "qcow2", image]),
    );
    expect(await said("zoned-writes.py", "writing.sock")).toBe(ZONED);
    await writing.end();
    expect((await command.zcow(at("."), ["check", image])).code).toBe(0);
  });
});

/** Statuses: bits 0-3 type, 4-7 condition (1 empty, 2 open, 14 full), bit 8 written, bit 9 past the capacity. */
const ZONED = `at the start: done
at the write pointer: done
before the write pointer: EINVAL
behind the write pointer: EINVAL
zeros at the write pointer: done
zeros before the write pointer: EINVAL
nearly full: done
across the capacity: EINVAL
to the capacity: done
full: EINVAL
conventional, anywhere: done
flush: done
zcow:zones [524288, 1, 524288, 513, 73728, 290, 450560, 34, 524288, 546, 524288, 482, 524288, 738, 524288, 18, 524288, 530]
[8, 5, 6, 0, 9]
`;
