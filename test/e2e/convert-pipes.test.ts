import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { describeWithStock, qemuImg, runTool, type ToolResult, temporaryDirectory } from "../support/stock-tools.js";
import { BuiltCommand } from "./built-command.js";

describeWithStock("converting from and to pipes", () => {
  const root = temporaryDirectory();
  const folder = join(root, "images");
  const built = join(root, "built");
  let command: BuiltCommand;

  beforeAll(async () => {
    command = await BuiltCommand.build(built);
    mkdirSync(folder);
    for (const args of [
      ["qemu-img", "create", "-q", "-f", "qcow2", "from.qcow2", "70M"],
      ["qemu-io", "-f", "qcow2", "-c", "write -P 1 100k 3M", "-c", "write -P 2 69M 500k", "from.qcow2"],
      ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", "from.qcow2", "from.raw"],
      ["truncate", "-s", "+700", "from.raw"],
      ["qemu-img", "create", "-q", "-f", "qcow2", "huge.qcow2", "1T"],
      ["qemu-io", "-f", "qcow2", "-c", "write -P 3 700G 64k", "-c", "write -P 4 1048575M 1M", "huge.qcow2"],
      ["qemu-img", "create", "-q", "-f", "qcow2", "empty.qcow2", "0"],
    ]) {
      const made = await runTool("env", ["-C", folder, ...args]);
      if (made.code !== 0) throw new Error(`${args.join(" ")}: ${made.stderr}`);
    }
  });

  /** `zcow` in the script is our command. */
  const shell = (script: string): Promise<ToolResult> =>
    command.shell(folder, `zcow() { "${process.execPath}" "${built}/zcow.cjs" "$@"; }\n${script}`);

  async function mustRun(script: string): Promise<void> {
    expect(await shell(script)).toEqual({ code: 0, stdout: "", stderr: "" });
  }

  async function expectSame(
    first: [format: string, name: string],
    second: [format: string, name: string],
  ): Promise<void> {
    const args = ["compare", "-f", first[0], "-F", second[0], join(folder, first[1]), join(folder, second[1])];
    const result = await qemuImg(args);
    expect(result).toMatchObject({ code: 0 });
    if (second[0] === "qcow2") {
      const checked = await qemuImg(["check", join(folder, second[1])]);
      expect(checked.stdout).toContain("No errors were found");
      expect(checked.code).toBe(0);
    }
  }

  it.each([
    ["from.qcow2", ""],
    ["from.qcow2", "-o cluster_size=4k,compat=0.10"],
    ["from.qcow2", "-o cluster_size=2M"],
    ["huge.qcow2", ""],
    ["empty.qcow2", ""],
  ])("sends %s as qcow2 %s in one pass, with nothing but what it needs", async (name, options) => {
    await mustRun(`zcow convert -f qcow2 -O qcow2 ${options} ${name} - | cat > sent.qcow2`);
    await expectSame(["qcow2", name], ["qcow2", "sent.qcow2"]);
    expect(statSync(join(folder, "sent.qcow2")).size).toBeLessThan(24 * 1024 * 1024);
  });

  it("sends raw disks with all their zeros, a last half sector made whole", async () => {
    await mustRun("zcow convert -f raw -O raw from.raw - | head -c 73401020 | cmp - from.raw");
    await mustRun("zcow convert -f raw -O qcow2 from.raw - | cat > odd.qcow2");
    await expectSame(["raw", "from.raw"], ["qcow2", "odd.qcow2"]);
  });

  it.each(["", "-c", "-S 0", "-o extended_l2=on"])(
    "takes a raw disk of unknown length into qcow2 %s",
    async (options) => {
      await mustRun(`cat from.raw | zcow convert -O qcow2 ${options} - taken.qcow2`);
      await expectSame(["raw", "from.raw"], ["qcow2", "taken.qcow2"]);
    },
  );

  it("takes a raw disk into a raw file of the same length, with holes", async () => {
    await mustRun("cat from.raw | zcow convert - taken.raw && cmp from.raw taken.raw");
    expect(statSync(join(folder, "taken.raw")).blocks * 512).toBeLessThan(8 * 1024 * 1024);
    await mustRun(": | zcow convert - nothing.raw && cmp nothing.raw /dev/null");
  });

  it("treats standard input that is a file as any file", async () => {
    await mustRun("zcow convert -f raw -O qcow2 - file.qcow2 < from.raw");
    await expectSame(["raw", "from.raw"], ["qcow2", "file.qcow2"]);
    await mustRun("zcow convert -f raw -O qcow2 - - < from.raw | cat > both.qcow2");
    await expectSame(["raw", "from.raw"], ["qcow2", "both.qcow2"]);
  });

  it.each([
    "zcow convert -c -O qcow2 from.qcow2 -",
    "zcow convert -n from.qcow2 -",
    "zcow convert -O qcow2 -o preallocation=full from.qcow2 -",
    "cat from.raw | zcow convert - -",
    "cat from.raw | zcow convert -f qcow2 - x",
    "cat from.raw | zcow convert - from.raw x",
  ])("refuses what cannot be: %s", async (script) => {
    const { code, stdout, stderr } = await shell(script);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^zcow: .+\n$/);
  });

  it("ends when the reader goes away", async () => {
    const { stdout, stderr } = await shell("zcow convert -O raw from.qcow2 - | head -c 10 | wc -c");
    expect({ stdout: stdout.trim(), stderr }).toEqual({ stdout: "10", stderr: "" });
  });
});
