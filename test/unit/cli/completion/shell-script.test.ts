import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CommandTable } from "../../../../src/cli/command-table.js";
import { shellScript } from "../../../../src/cli/completion/shell-script.js";
import { COMMANDS, runProgram } from "../../../../src/cli/program.js";
import { runTool } from "../../../support/stock-tools.js";

const SMALL: CommandTable = {
  show: {
    summary: 'show: it\'s "all"',
    load: async () => async () => 0,
    manual: async () => ({
      name: "show",
      synopsis: ["FILE"],
      about: [],
      options: [
        { name: "way", short: "w", long: "way", value: "WAY", about: "which [way]", choices: ["up", "down"] },
        { name: "quiet", short: "q", about: "don't speak" },
        { name: "secret", long: "secret", value: "TEXT" },
      ],
      words: ["now"],
    }),
  },
};

describe("the script for bash", () => {
  let folder = "";
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "zcow-completion-"));
    writeFileSync(join(folder, "zcow.bash"), await shellScript("bash", COMMANDS));
    writeFileSync(join(folder, "image.qcow2"), "");
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** What bash offers for the last word of a command line. */
  async function offered(...words: string[]): Promise<string[]> {
    const list = words.map((word) => `'${word}'`).join(" ");
    const script = `source ./zcow.bash; COMP_WORDS=(${list}); COMP_CWORD=${words.length - 1}; _zcow; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout, stderr } = await runTool("env", ["-C", folder, "bash", "--norc", "-uc", script]);
    expect(stderr).toBe("");
    return stdout.split("\n").filter((line) => line !== "");
  }

  it("completes commands, and the commands behind zone", async () => {
    expect(await offered("zcow", "com")).toEqual(expect.arrayContaining(["compact", "completion"]));
    expect(await offered("zcow", "zone", "set")).toEqual(["set-state"]);
    expect(await offered("zcow", "--json", "inf")).toEqual(["info"]);
  });

  it("completes options, their values, and files", async () => {
    expect(await offered("zcow", "info", "--back")).toEqual(["--backing-chain"]);
    expect(await offered("zcow", "info", "-f", "qc")).toEqual(["qcow2"]);
    expect(await offered("zcow", "check", "--repair", "=", "le")).toEqual(["leaks"]);
    expect(await offered("zcow", "check", "-q", "im")).toEqual(["image.qcow2"]);
    expect(await offered("zcow", "zone", "report", "--output", "pic")).toEqual(["picture"]);
    expect(await offered("zcow", "create", "-b", "im")).toEqual(["image.qcow2"]);
    expect(await offered("zcow", "snapshot", "-c", "im")).toEqual([]);
  });
});

describe("the other scripts", () => {
  it("are for zsh a function for each command, with texts in quotes", async () => {
    expect(await shellScript("zsh", SMALL)).toContain(`_zcow_show() {
  _arguments -s \\
    '*'{-w,--way}'[which \\[way\\]]:WAY:(up down)' \\
    '*-q[don'\\''t speak]' \\
    '*: :{ _alternative "words:word:(now)" "files:file:_files" }'
}
`);
    expect(await shellScript("zsh", SMALL)).toContain(`    'show:show: it'\\''s "all"'\n`);
  });

  it("are for fish a line for each option, with texts in quotes", async () => {
    const lines = (await shellScript("fish", SMALL)).split("\n");
    expect(lines).toContain(`complete -c zcow -n __zcow_needs_command -a show -d 'show: it\\'s "all"'`);
    expect(lines).toContain(
      "complete -c zcow -n '__fish_seen_subcommand_from show' -s w -l way -x -a 'up down' -d 'which [way]'",
    );
    expect(lines).toContain("complete -c zcow -n '__fish_seen_subcommand_from show' -a now");
  });
});

describe("completion", () => {
  it("is printed for the shell that is named, and for no other", async () => {
    let [out, err] = ["", ""];
    const output = { out: (text: string) => void (out += text), err: (text: string) => void (err += text) };
    expect(await runProgram("zcow", ["completion", "fish"], output)).toBe(0);
    expect(out).toMatch(/^# Completion of zcow for fish/);
    expect(await runProgram("zcow", ["completion", "csh"], output)).toBe(1);
    expect(err).toMatch(/^zcow: Expecting one of bash, zsh, fish\n/);
  });
});
