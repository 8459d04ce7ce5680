// The main job, typed as a user would type it: a zoned image is made, written, closed, reopened and checked.
import { mkdirSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { capture, PROJECT_ROOT } from "./run-command.mjs";

const FOLDER = join(PROJECT_ROOT, ".cache/demo");
const IMAGE = "test.qcow2";
const COMMAND = join(PROJECT_ROOT, "dist/cli/zcow.js");

// Extra certificates only slow the start of short commands down.
const { NODE_EXTRA_CA_CERTS: _certificates, ...ENVIRONMENT } = process.env;

/** @param {string} text */
const title = (text) => console.log(`\n== ${text}\n`);

/** @param {string} arg */
const quoted = (arg) => (/^[\w./=:,-]+$/.test(arg) ? arg : `"${arg}"`);

/** @param {readonly string[]} args */
function runZcow(args) {
  return capture(process.execPath, [COMMAND, ...args], { cwd: FOLDER, env: ENVIRONMENT });
}

/**
 * Shows a command and what it prints. One that does not end as expected ends the demonstration.
 * @param {readonly string[]} args
 * @param {{ expectFailure?: boolean }} [options]
 */
async function show(args, options = {}) {
  console.log(`$ zcow ${args.map(quoted).join(" ")}`);
  const { code, output } = await runZcow(args);
  if (output !== "") console.log(output.trimEnd());
  const asExpected = options.expectFailure === true ? code === 1 : code === 0;
  if (!asExpected) throw new Error(`zcow ${args[0]} exited with ${code}: the demonstration ends here`);
}

/** @param {readonly string[]} commands for `zcow io`, in one session */
const io = (...commands) => ["io", "-f", "qcow2", ...commands.flatMap((command) => ["-c", command]), IMAGE];

/** The create command as the first zoned patch series printed it. */
const CREATE =
  `create -f qcow2 ${IMAGE} -o size=768M -o zone_size=64M -o zone_capacity=64M -o nr_conv_zones=0 ` +
  "-o max_append_sectors=512 -o max_open_zones=0 -o max_active_zones=0 -o zone_model=1";

function printWhatNext() {
  const zcow = relative(process.cwd(), COMMAND) || COMMAND;
  const image = relative(process.cwd(), join(FOLDER, IMAGE));
  title("What to try next");
  const rows = [
    [`node ${zcow} zone report ${image}`, "the zones"],
    [`node ${zcow} io ${image}`, "then: help, zrp 0 12, zap -p 64M 8k, quit"],
    [`node ${zcow} zone append ${image} --help`, "write at the pointer of a zone"],
    [`node ${zcow} create -f qcow2 -o help`, "all options"],
    ["npm test", "the whole proof"],
  ];
  const width = Math.max(...rows.map(([command = ""]) => command.length));
  console.log(`The image is still there: ${image}\n`);
  for (const [command = "", meaning] of rows) console.log(`  ${command.padEnd(width)}   # ${meaning}`);
}

export async function runDemo() {
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(FOLDER, { recursive: true });

  title("A disk of 768 MiB with 12 zones that only take sequential writes");
  await show(CREATE.split(" "));
  await show(["info", IMAGE]);

  title("Write, append, open and finish zones, in one session. Zone report while the image is open:");
  await show(
    io(
      "write -P 0x41 0 1M",
      "write -P 0x42 1M 64k",
      "zap -p -P 0x43 64M 4k",
      "zap -p -P 0x43 64M 8k",
      "zo 128M 64M",
      "zf 192M 64M",
      "flush",
      "zrp 0 5",
    ),
  );

  title("After close and reopen: the pointers are durable, open zones are closed, an open zone without data is empty");
  await show(["zone", "report", IMAGE]);

  title("A write that is not at the write pointer is refused, and changes nothing");
  await show(io("write -P 0x44 32M 4k"), { expectFailure: true });

  title("What was written is there, and nothing above the pointer is");
  await show(io("read -P 0x41 0 1M", "read -P 0x42 1M 64k", "read -P 0x43 64M 12k", "read -P 0 65548k 1M"));

  title("Reset gives the space back");
  await show(["zone", "reset", IMAGE, "0", "64M"]);
  await show(io("read -P 0 0 64M", "zrp 0 2"));

  title("Nothing is wrong with the image");
  await show(["check", IMAGE]);
  printWhatNext();
}
