import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { runProgram } from "../../src/cli/program.js";
import { hasStockTools, qemuIo, type ToolResult, temporaryDirectory } from "../support/stock-tools.js";
import { BuiltCommand } from "./built-command.js";

const GOLDEN = join(dirname(fileURLToPath(import.meta.url)), "../corpus/golden");
const folder = temporaryDirectory();

/** The program within this process, called as zcow. */
async function zcow(...args: string[]): Promise<ToolResult> {
  process.chdir(folder);
  let stdout = "";
  let stderr = "";
  const output = {
    out: (text: string): void => {
      stdout += text;
    },
    err: (text: string): void => {
      stderr += text;
    },
  };
  return { code: await runProgram("zcow", args, output), stdout, stderr };
}

const io = (image: string, ...commands: string[]): Promise<ToolResult> =>
  zcow("io", "-f", "qcow2", image, ...commands.flatMap((command) => ["-c", command]));

/** What `zone report --output qemu` prints for every written golden image, but for the one without a table. */
const GOLDEN_REPORT = `start: 0x0, len 0x4000, cap 0x4000, wptr 0x0, zcond:0, [type: 1]
start: 0x4000, len 0x4000, cap 0x4000, wptr 0x4000, zcond:0, [type: 1]
start: 0x8000, len 0x4000, cap 0x4000, wptr 0x8180, zcond:4, [type: 2]
start: 0xc000, len 0x4000, cap 0x4000, wptr 0xc018, zcond:4, [type: 2]
start: 0x10000, len 0x4000, cap 0x4000, wptr 0x14000, zcond:14, [type: 2]
start: 0x14000, len 0x4000, cap 0x4000, wptr 0x18000, zcond:14, [type: 2]
start: 0x18000, len 0x4000, cap 0x4000, wptr 0x18020, zcond:4, [type: 2]
start: 0x1c000, len 0x4000, cap 0x4000, wptr 0x1c001, zcond:4, [type: 2]
start: 0x20000, len 0x4000, cap 0x4000, wptr 0x20000, zcond:1, [type: 2]
start: 0x24000, len 0x4000, cap 0x4000, wptr 0x24000, zcond:1, [type: 2]
start: 0x28000, len 0x4000, cap 0x4000, wptr 0x28000, zcond:1, [type: 2]
start: 0x2c000, len 0x4000, cap 0x4000, wptr 0x2c000, zcond:1, [type: 2]
`;

const SEED_REPORT = GOLDEN_REPORT.replace("wptr 0xc018", "wptr 0xc080")
  .replace("wptr 0x14000, zcond:14", "wptr 0x10000, zcond:1")
  .replace("wptr 0x18000, zcond:14", "wptr 0x14800, zcond:4")
  .replace("wptr 0x18020", "wptr 0x18080")
  .replace("wptr 0x1c001", "wptr 0x1c080");

const CREATE_ARGUMENTS =
  "create -f qcow2 test.qcow2 -o size=768M -o zone_size=64M -o zone_capacity=64M -o nr_conv_zones=0 " +
  "-o max_append_sectors=512 -o max_open_zones=0 -o max_active_zones=0 -o zone_model=1";

describe("the command line of the first zoned patch series", () => {
  it("makes a valid image, typed as printed", async () => {
    const made = await zcow(...CREATE_ARGUMENTS.split(" "));
    expect(made.code).toBe(0);
    expect(made.stdout).toMatch(/^Formatting 'test.qcow2', fmt=qcow2 .*zone_size=67108864 .*zone_model=1\n$/);
    expect((await zcow("check", "test.qcow2")).code).toBe(0);
  });

  it("gives an image whose zones `info` shows, as text and as JSON", async () => {
    const text = await zcow("info", "test.qcow2");
    expect(text.stdout).toContain(
      [
        "    zoned:",
        "        model: host-managed",
        "        layout: current",
        "        zone size: 67108864",
        "        zone capacity: 67108864",
        "        zones: 12",
        "        conventional zones: 0",
        "        max open zones: 0",
        "        max active zones: 0",
        "",
      ].join("\n"),
    );
    const json = JSON.parse((await zcow("info", "--output=json", "test.qcow2")).stdout) as {
      "format-specific": { data: { zoned: Record<string, unknown> } };
    };
    expect(json["format-specific"].data.zoned).toMatchObject({ "zone-size": 67108864, zones: 12, layout: "current" });
  });

  it("gives an image that stock QEMU, which knows no zones, refuses to touch", async () => {
    if (!hasStockTools) return;
    const refused = await qemuIo(["-f", "qcow2", "-c", "read 0 512", join(folder, "test.qcow2")]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain("zoned format");
  });
});

describe("a session of zcow io on a zoned image", () => {
  beforeAll(async () => {
    await zcow(..."create -q -f qcow2 -o zone.mode=host-managed,zone.size=64M s.qcow2 768M".split(" "));
  });

  it("prints zones, appends and failures in the form of qemu-io", async () => {
    const result = await io(
      "s.qcow2",
      "write -q -P 0x41 0 1M",
      "zap -p 64M 4k 8k",
      "zap -p -P 0x43 64M 8k",
      "zo 128M 64M",
      "zf 192M 64M",
      "zrp 0 5",
      "write 32M 4k",
      "zc 128M 64M",
      "zone_open 256M 64M",
      "zrp 128M 1",
      "zrs 192M 64M",
      "zrp 192M 1",
      "zo 5 7",
    );
    expect(result.code).toBe(1);
    expect(result.stdout).toBe(
      [
        "After zap done, the append sector is 0x20000",
        "After zap done, the append sector is 0x20018",
        "start: 0x0, len 0x20000, cap 0x20000, wptr 0x800, zcond:2, [type: 2]",
        "start: 0x20000, len 0x20000, cap 0x20000, wptr 0x20028, zcond:2, [type: 2]",
        "start: 0x40000, len 0x20000, cap 0x20000, wptr 0x40000, zcond:3, [type: 2]",
        "start: 0x60000, len 0x20000, cap 0x20000, wptr 0x80000, zcond:14, [type: 2]",
        "start: 0x80000, len 0x20000, cap 0x20000, wptr 0x80000, zcond:1, [type: 2]",
        "write failed: Input/output error",
        "start: 0x40000, len 0x20000, cap 0x20000, wptr 0x40000, zcond:1, [type: 2]",
        "start: 0x60000, len 0x20000, cap 0x20000, wptr 0x60000, zcond:1, [type: 2]",
        "zone open failed: Invalid argument",
        "",
      ].join("\n"),
    );
    expect(result.stderr).toContain("33554432");
    expect(result.stderr).toContain("1048576");
  });

  it("finds the pointers again after close and reopen, open zones closed", async () => {
    expect((await zcow("zone", "report", "--output", "qemu", "-n", "3", "s.qcow2")).stdout).toBe(
      [
        "start: 0x0, len 0x20000, cap 0x20000, wptr 0x800, zcond:4, [type: 2]",
        "start: 0x20000, len 0x20000, cap 0x20000, wptr 0x20028, zcond:4, [type: 2]",
        "start: 0x40000, len 0x20000, cap 0x20000, wptr 0x40000, zcond:1, [type: 2]",
        "",
      ].join("\n"),
    );
    const read = await io("s.qcow2", "read -q -P 0x41 0 1M", "read -q -P 0xcd 64M 12k", "read -q -P 0x43 67121152 8k");
    expect(read).toEqual({ code: 0, stdout: "", stderr: "" });
  });

  it("goes on after a command that hits damage, and leaves the image closed", async () => {
    await zcow("create", "-q", "-f", "qcow2", "damaged.qcow2", "1M");
    const path = join(folder, "damaged.qcow2");
    const bytes = readFileSync(path);
    // The L1 table is cluster 3 of a fresh image; its first entry now points between two clusters.
    bytes.set([0x80, 0, 0, 0, 0, 0, 2, 1], 3 * 65536);
    writeFileSync(path, bytes);
    const result = await io("damaged.qcow2", "map", "length");
    expect(result).toMatchObject({ code: 1, stdout: "1 MiB\n" });
    expect(result.stderr).toMatch(/^zcow: /);
    // Found in writing, the damage has been noted in the image, which from now on opens for reading only.
    expect((await io("damaged.qcow2", "length")).stderr).toContain("corrupt");
    expect((await zcow("io", "-r", "-f", "qcow2", "-c", "length", "damaged.qcow2")).code).toBe(0);
  });

  it("says of images without zones that they have none", async () => {
    await zcow("create", "-q", "-f", "qcow2", "plain.qcow2", "1M");
    expect(await io("plain.qcow2", "zrp 0 1")).toMatchObject({
      code: 1,
      stdout: "zone report failed: Operation not supported\n",
      stderr: "zcow: plain.qcow2 is not a zoned image\n",
    });
    expect(await zcow("zone", "report", "plain.qcow2")).toMatchObject({ code: 1, stdout: "" });
  });
});

describe("zcow zone", () => {
  beforeAll(async () => {
    const options =
      "zone.mode=host-managed,zone.size=1M,zone.capacity=768k,zone.conventional_zones=1,zone.max_open_zones=2";
    await zcow("create", "-q", "-f", "qcow2", "-o", options, "z.qcow2", "6M");
  });

  it("appends what it is given, and shows where it went", async () => {
    expect(await zcow("zone", "append", "z.qcow2", "1M", "-l", "4k", "-P", "0x11")).toEqual({
      code: 0,
      stdout: "appended 4096 bytes at offset 1048576 (sector 0x800)\n",
      stderr: "",
    });
    writeFileSync(join(folder, "data"), Buffer.alloc(1024, 0x22));
    const second = await zcow("zone", "append", "--output", "json", "z.qcow2", "1M", "-i", "data");
    expect(JSON.parse(second.stdout)).toEqual({ offset: 1052672, length: 1024 });
    expect((await io("z.qcow2", "read -q -P 0x11 1M 4k", "read -q -P 0x22 1052672 1k")).code).toBe(0);
  });

  it("finishes and resets zones by offset, by number and all together", async () => {
    expect((await zcow("zone", "finish", "z.qcow2", "2M")).stdout).toBe("zone 2: empty -> full\n");
    expect((await zcow("zone", "finish", "z.qcow2", "--zone", "3-4")).stdout).toBe(
      "zone 3: empty -> full\nzone 4: empty -> full\n",
    );
    expect((await zcow("zone", "reset", "z.qcow2", "2M", "2M")).stdout).toBe(
      "zone 2: full -> empty\nzone 3: full -> empty\n",
    );
    expect((await zcow("zone", "reset", "--all", "z.qcow2")).stdout).toBe(
      "zone 1: closed -> empty\nzone 4: full -> empty\n",
    );
    expect((await zcow("zone", "reset", "-q", "--all", "z.qcow2")).stdout).toBe("");
  });

  it("says that open states end with the command", async () => {
    const opened = await zcow("zone", "open", "z.qcow2", "--zone", "1");
    expect(opened).toMatchObject({ code: 0, stdout: "zone 1: empty -> explicitly-open\n" });
    expect(opened.stderr).toMatch(/^note: open states end/);
    expect((await zcow("zone", "report", "--output", "qemu", "-o", "1M", "-n", "1", "z.qcow2")).stdout).toContain(
      "zcond:1",
    );
  });

  it("refuses what the limits and the zones forbid, and changes nothing", async () => {
    const before = (await zcow("zone", "report", "--output=json", "z.qcow2")).stdout;
    for (const args of [
      ["open", "z.qcow2", "--zone", "1-3"],
      ["open", "z.qcow2", "0"],
      ["finish", "z.qcow2", "1M", "1000"],
      ["reset", "z.qcow2", "--zone", "9"],
      ["reset", "z.qcow2"],
      ["reset", "z.qcow2", "1M", "--all"],
      ["append", "z.qcow2", "0", "-l", "512"],
      ["append", "z.qcow2", "1M", "-l", "786944"],
      ["append", "z.qcow2", "1M", "-l", "100"],
      ["append", "z.qcow2", "1M"],
      ["nonsense", "z.qcow2"],
      [],
    ]) {
      const refused = await zcow("zone", ...args);
      expect([args, refused.code, refused.stdout]).toEqual([args, 1, ""]);
      expect(refused.stderr).toMatch(/^zcow: /);
    }
    expect((await zcow("zone", "report", "--output=json", "z.qcow2")).stdout).toBe(before);
  });

  it("runs commands while a zone is offline or read-only, and leaves no trace of the fault", async () => {
    const offline = await zcow("zone", "set-state", "z.qcow2", "1M", "offline", "-c", "read 1M 512", "-c", "zrp 1M 1");
    expect(offline.code).toBe(1);
    expect(offline.stdout).toContain("read failed: No such device or address\n");
    expect(offline.stdout).toContain("zcond:15");
    const readOnly = await zcow("zone", "set-state", "z.qcow2", "1M", "read-only", "-c", "write 1M 512");
    expect(readOnly.stdout).toContain("write failed: Read-only file system\n");
    expect((await io("z.qcow2", "read -q 1M 512")).code).toBe(0);
    expect((await zcow("zone", "set-state", "z.qcow2", "1M", "offline")).stderr).toContain("-c");
    expect((await zcow("zone", "set-state", "z.qcow2", "1M", "bogus", "-c", "zrp 0 1")).code).toBe(1);
  });

  it("shows a table for people in a pipe: no colours, no block characters", async () => {
    await zcow("zone", "append", "z.qcow2", "1M", "-l", "512");
    const { stdout } = await zcow("zone", "report", "z.qcow2");
    expect(stdout).toBe(`z.qcow2: 6 zones of 1 MiB (capacity 768 KiB), 1 conventional
written 512 B; open 0 (at most 2); active 1 (no limit); largest append 768 KiB

ZONE  START   SIZE  CAPACITY  WRITTEN   FILL  STATE
   0    0 B  1 MiB   768 KiB        -      -  conventional
   1  1 MiB  1 MiB   768 KiB    512 B  <0.1%  closed
   2  2 MiB  1 MiB   768 KiB      0 B   0.0%  empty
   3  3 MiB  1 MiB   768 KiB      0 B   0.0%  empty
   4  4 MiB  1 MiB   768 KiB      0 B   0.0%  empty
   5  5 MiB  1 MiB   768 KiB      0 B   0.0%  empty
`);
    expect((await zcow("zone", "report", "--output", "picture", "z.qcow2")).stdout).toBe(
      " 0 =C....\n\n= conventional  . empty  C closed\n",
    );
  });

  it("reports zones for programs in bytes", async () => {
    const report = JSON.parse(
      (await zcow("zone", "report", "--output=json", "-o", "1M", "-n", "1", "z.qcow2")).stdout,
    ) as {
      zones: unknown[];
    };
    expect(report).toMatchObject({ "zone-count": 6, "zone-capacity": 786432, "max-open-zones": 2 });
    expect(report.zones).toEqual([
      {
        index: 1,
        start: 1048576,
        length: 1048576,
        capacity: 786432,
        "write-pointer": 1049088,
        state: "closed",
        type: "sequential-write-required",
      },
    ]);
  });
});

describe.skipIf(!existsSync(GOLDEN))("images made by other programs", () => {
  const images = existsSync(GOLDEN) ? readdirSync(GOLDEN).filter((name) => name.endsWith(".qcow2")) : [];
  const written = images.filter((name) => name.includes("written"));

  it("are all there", () => {
    expect(images.length).toBe(7);
  });

  it.each(written)("%s reports the zones and holds the bytes that its maker says", async (name) => {
    cpSync(join(GOLDEN, name), join(folder, name));
    const report = await zcow("zone", "report", "--output", "qemu", name);
    expect(report.stdout).toBe(name.includes("seed") ? SEED_REPORT : GOLDEN_REPORT);
    const bytes = await zcow(
      "io",
      "-r",
      "-f",
      "qcow2",
      name,
      ..."read -q -P 0x11 1M 64k;read -q -P 0x12 9M 4k;read -q -P 0x21 16M 192k;read -q -P 0x33 24M 12k;read -q -P 0x51 40M 1M;read -q -P 0xcd 48M 16k;read -q -P 0x71 56M 512;read -q -P 0 2M 7M;read -q -P 0 64M 32M"
        .split(";")
        .flatMap((command) => ["-c", command]),
    );
    expect([bytes.code, bytes.stdout]).toEqual([0, ""]);
    expect((await zcow("check", name)).code).toBe(0);
  });

  it.each(written)("%s can be brought into the current layout, zones and bytes kept", async (name) => {
    const copy = `amended-${name}`;
    cpSync(join(GOLDEN, name), join(folder, copy));
    expect((await zcow("amend", "-o", "zone.layout=current", copy)).code).toBe(0);
    expect((await zcow("info", copy)).stdout).toContain("layout: current");
    expect((await zcow("zone", "report", "--output", "qemu", copy)).stdout).toBe(
      name.includes("seed") ? SEED_REPORT : GOLDEN_REPORT,
    );
    expect(
      (await io(copy, "read -q -P 0x51 40M 1M", "write -q -P 0x99 16973824 512", "read -q -P 0x99 16973824 512")).code,
    ).toBe(0);
    expect((await zcow("check", copy)).code).toBe(0);
  });

  it("empty ones are empty", async () => {
    cpSync(join(GOLDEN, "v8-empty.qcow2"), join(folder, "v8-empty.qcow2"));
    const { stdout } = await zcow("zone", "report", "v8-empty.qcow2");
    expect(stdout).toContain("12 zones of 64 MiB, 0 conventional\n");
    expect(stdout).toContain("open 0 (at most 6); active 0 (at most 8); largest append 4 KiB\n");
  });
});

describe("the built command", () => {
  let command: BuiltCommand;

  beforeAll(async () => {
    command = await BuiltCommand.build(join(folder, "built"));
  });

  it("runs by itself", async () => {
    expect(await command.zcow(folder, ["--version"])).toEqual({ code: 0, stdout: "zcow 0.0.0-test\n", stderr: "" });
    expect((await command.zcow(folder, ["info", "z.qcow2"])).stdout).toContain("zone capacity: 786432");
    expect((await command.zcow(folder, ["nonsense"])).code).toBe(1);
  });

  it("reads the commands of io from standard input and prompts", async () => {
    const { stdout, code } = await command.zcow(folder, ["io", "-r", "z.qcow2"], "zrp 1M 1\nlength\n");
    expect(stdout).toBe(
      "qemu-io> start: 0x800, len 0x800, cap 0x600, wptr 0x801, zcond:4, [type: 2]\nqemu-io> 6 MiB\nqemu-io> ",
    );
    expect(code).toBe(0);
  });

  it("appends standard input to a zone", async () => {
    const appended = await command.zcow(folder, ["zone", "append", "z.qcow2", "2M", "-i", "-"], "x".repeat(512));
    expect(appended.stdout).toBe("appended 512 bytes at offset 2097152 (sector 0x1000)\n");
  });

  it("fails when its output cannot be stored", async () => {
    const { stderr } = await command.shell(folder, 'node built/zcow.cjs info z.qcow2 >/dev/full; echo "status $?" >&2');
    expect(stderr).toBe("zcow: cannot write to standard output: no space left on the device\nstatus 1\n");
  });

  it("stops quietly when nobody reads its output any more", async () => {
    const script = `{ node built/zcow.cjs map --output=json z.qcow2; echo "status $?" >&2; } | true`;
    const { stderr } = await command.shell(folder, script);
    expect(stderr).toMatch(/^status (0|141)\n$/);
    expect(statSync(join(folder, "z.qcow2")).size).toBeGreaterThan(0);
  });
});
