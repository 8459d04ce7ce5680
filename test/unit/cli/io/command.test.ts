import { describe, expect, it } from "vitest";
import { BaseBlockDevice } from "../../../../src/block/base-device.js";
import { WRITE_BACK } from "../../../../src/cli/cache-mode.js";
import { ioCommands } from "../../../../src/cli/io/all-commands.js";
import { hexDump, sizeFigure, transferReport } from "../../../../src/cli/io/figures.js";
import { IoImage, PLAIN_CHOICE } from "../../../../src/cli/io/image.js";
import { IoSession } from "../../../../src/cli/io/session.js";
import { runProgram } from "../../../../src/cli/program.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";

function capture(): {
  output: { out: (text: string) => void; err: (text: string) => void };
  text: () => [string, string];
} {
  let [out, err] = ["", ""];
  return {
    output: {
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
    },
    text: () => [out, err],
  };
}

describe("figures of io", () => {
  it.each([
    [0, "0 bytes"],
    [512, "512 bytes"],
    [3000, "2.930 KiB"],
    [65536, "64 KiB"],
    [65470464, "62.438 MiB"],
    [2162688, "2.062 MiB"],
    [2 ** 40, "1 TiB"],
  ])("shows %d bytes as %s", (bytes, text) => {
    expect(sizeFigure(bytes)).toBe(text);
  });

  it("reports a transfer in two lines for people and one for programs", () => {
    const transfer = { verb: "read", offset: 1024, length: 512, seconds: 0.25 };
    expect(transferReport({ ...transfer, machine: false })).toBe(
      "read 512/512 bytes at offset 1024\n512 bytes, 1 ops; 00.25 sec (2 KiB/sec and 4.0000 ops/sec)\n",
    );
    expect(transferReport({ ...transfer, machine: true })).toBe("512,1,0:00:00.25,2048.000,4.000\n");
    expect(transferReport({ ...transfer, seconds: 3723.5, machine: false })).toContain("1 ops; 1:02:03.50 (");
  });

  it("does not divide by a time of zero", () => {
    expect(transferReport({ verb: "read", offset: 0, length: 0, seconds: 0, machine: false })).not.toMatch(
      /NaN|Infinity/,
    );
  });

  it("dumps sixteen bytes a line, with letters and digits beside them", () => {
    const bytes = Uint8Array.from({ length: 18 }, (_, index) => 0x39 + index);
    expect(hexDump(bytes, 0x100)).toBe(
      "00000100:  39 3a 3b 3c 3d 3e 3f 40 41 42 43 44 45 46 47 48  9.......ABCDEFGH\n00000110:  49 4a  IJ\n",
    );
  });
});

describe("the commands of io", () => {
  it("have names and aliases that lead to one command each", () => {
    const list = [...new Set(ioCommands().values())];
    const names = list.flatMap((command) => [command.name, ...(command.alias === undefined ? [] : [command.alias])]);
    expect(new Set(names).size).toBe(names.length);
    for (const alias of ["zrp", "zo", "zc", "zf", "zrs", "zap", "zss"]) expect(ioCommands().has(alias)).toBe(true);
  });

  it("are all listed by help, and each explains itself", async () => {
    const { output, text } = capture();
    const session = new IoSession({ program: "zcow", standIn: false, output }, ioCommands());
    expect(await session.execute("help")).toBe(true);
    const commands = session.commandList();
    for (const command of commands) expect(text()[0]).toContain(`${command.name} `);
    for (const command of commands) expect(await session.execute(`help ${command.name}`)).toBe(true);
    expect(text()[1]).toBe("");
  });
});

describe("requests in flight", () => {
  /** Answers reads only when told to. */
  class SlowDevice extends BaseBlockDevice {
    readonly waiting: (() => void)[] = [];
    constructor() {
      const limits = { requestAlignment: 1, optimalAlignment: 4096, zoned: undefined };
      super({ format: "raw", name: "slow", size: 4096, readOnly: false, limits });
    }
    protected doRead(): Promise<void> {
      return new Promise((resolve) => this.waiting.push(resolve));
    }
    protected doWrite(): undefined {
      return undefined;
    }
    protected doWriteZeroes(): undefined {
      return undefined;
    }
    protected doDiscard(): undefined {
      return undefined;
    }
    protected doFlush(): undefined {
      return undefined;
    }
    protected async *doExtents(): AsyncGenerator<never> {}
    protected async doClose(): Promise<void> {}
  }

  it("are reported in the order of submission, by the command that waits for them", async () => {
    const { output, text } = capture();
    const device = new SlowDevice();
    const session = new IoSession({ program: "zcow", standIn: false, output }, ioCommands());
    session.use(
      IoImage.of(
        device,
        { ...PLAIN_CHOICE, path: "slow", options: [], cache: WRITE_BACK },
        memoryStorage(new Uint8Array()),
      ),
    );
    await session.execute("aio_read 0 512");
    await session.execute("aio_read 512 1k");
    await session.execute("length");
    expect(text()[0]).toBe("4 KiB\n");
    device.waiting[1]?.();
    await new Promise(setImmediate);
    const flushed = session.execute("aio_flush");
    await new Promise(setImmediate);
    device.waiting[0]?.();
    await flushed;
    const reports = text()[0]
      .split("\n")
      .filter((line) => line.startsWith("read "));
    expect(reports).toEqual(["read 512/512 bytes at offset 0", "read 1024/1024 bytes at offset 512"]);
    await session.close();
  });
});

describe("runProgram", () => {
  it("turns a mistake on the command line into a message and status 1", async () => {
    const { output, text } = capture();
    expect(await runProgram("zcow", ["info"], output)).toBe(1);
    expect(text()).toEqual(["", "zcow: Expecting one image file name\nTry 'zcow --help' for more information\n"]);
  });

  it("has only stock commands under the name of a stock tool", async () => {
    const { output, text } = capture();
    expect(await runProgram("qemu-img", ["zone", "report", "x"], output)).toBe(1);
    expect(text()[1]).toMatch(/^qemu-img: Command not found: zone\n/);
  });

  it("stands in for a stock tool that is named as a command", async () => {
    const { output, text } = capture();
    expect(await runProgram("zcow", ["qemu-img", "zone", "report", "x"], output)).toBe(1);
    expect(text()[1]).toMatch(/^qemu-img: Command not found: zone\n/);
    expect(await runProgram("zcow", ["qemu-io", "-c", "quit"], capture().output)).toBe(0);
  });

  it("takes no other tool's name for a command when it stands in for one", async () => {
    const { output, text } = capture();
    expect(await runProgram("qemu-img", ["qemu-io", "-c", "quit"], output)).toBe(1);
    expect(text()[1]).toMatch(/^qemu-img: Command not found: qemu-io\n/);
  });

  it.each(["qemu-img", "qemu-io"])("tells scripts under the name %s which release it follows", async (tool) => {
    const { output, text } = capture();
    expect(await runProgram(tool, ["--version"], output)).toBe(0);
    expect(text()[0]).toMatch(new RegExp(`^${tool} version 7\\.2\\.0 \\(zcow .+\\)\n$`));
  });

  it.each(["create", "info", "check", "map", "amend", "zone", "io"])("explains %s", async (name) => {
    const { output, text } = capture();
    expect(await runProgram("zcow", [name, "--help"], output)).toBe(0);
    expect(text()[0]).toMatch(new RegExp(`^usage: zcow ${name}`));
  });

  it.each(["report", "open", "close", "finish", "reset", "append", "set-state"])("explains zone %s", async (name) => {
    const { output, text } = capture();
    expect(await runProgram("zcow", ["zone", name, "--help"], output)).toBe(0);
    expect(text()[0]).toMatch(new RegExp(`^usage: zcow zone ${name}`));
  });

  it("lists its commands", async () => {
    const { output, text } = capture();
    expect(await runProgram("zcow", ["--help"], output)).toBe(0);
    for (const name of ["create", "info", "check", "map", "amend", "zone", "io"])
      expect(text()[0]).toContain(`  ${name} `);
  });
});
