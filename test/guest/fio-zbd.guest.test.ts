import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Guest } from "./guest.js";
import { chosenKernels } from "./kernels.js";
import { ServedImages } from "./served-images.js";

/** fio's own test of zoned devices takes some minutes under emulation. */
const SECONDS = 1200;

const CONFIGURATIONS = [
  { name: "limits and libaio", options: "zone.max_open_zones=8,zone.max_active_zones=10", flags: "" },
  {
    name: "no limits, less capacity than size, and io_uring",
    options: "zone.capacity=768k,zone.max_open_zones=0,zone.max_active_zones=0",
    flags: "-u",
  },
] as const;

/** The script is that of the newest fio. This fails where fio itself is older, on any disk. */
const FAULTS_OF_FIO: Readonly<Record<string, readonly string[]>> = {
  // Random writes end early when what is left of each open zone is less than a block (fio 3.39).
  "linux-6.12": ["71"],
};

describe.each(chosenKernels())("fio's test of zoned devices in %s", (kernel) => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.boot(kernel);
  });
  afterAll(async () => {
    await guest?.powerCut();
  });

  test.each(CONFIGURATIONS)(
    "finds no fault with $name",
    { timeout: SECONDS * 1000 + 60_000 },
    async (configuration) => {
      const zones = `zone.mode=host-managed,zone.size=1M,${configuration.options}`;
      await using served = await ServedImages.start([{ name: "zoned.qcow2", size: "160M", options: zones }]);
      await guest.expect(`connect ${served.port} ${served.nqn} 1`);
      const script = `DISK=$(namespace 1); . /job/fio-zbd.sh; fio_zbd -r -w ${configuration.flags}`;
      const { output } = await guest.run(script, SECONDS);
      const verdicts = output.split("\n").filter((line) => line.startsWith("Running test"));
      const count = (verdict: string) => verdicts.filter((line) => line.includes(`... ${verdict}`)).length;
      console.log(`${count("PASS")} passed, ${count("SKIP")} skipped, ${count("FAIL")} failed`);
      console.log(verdicts.filter((line) => !line.includes("... PASS")).join("\n"));
      const known = (FAULTS_OF_FIO[kernel] ?? []).map((number) => `Running test ${number} ... FAIL`);
      const failed = verdicts.filter((line) => line.includes("... FAIL"));
      if (failed.some((line) => !known.includes(line))) console.log(output);
      expect(failed.filter((line) => !known.includes(line))).toEqual([]);
      expect(output).toMatch(/^\d+ tests passed$/m);
      expect(count("PASS")).toBeGreaterThan(50);
      await guest.expect("disconnect; kernel_is_content");
      await served.stopServer();
      await served.expectClean();
    },
  );
});
