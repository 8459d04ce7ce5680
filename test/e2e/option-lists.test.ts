import { beforeAll, describe, it } from "vitest";
import { BothFolders } from "../support/both-folders.js";
import { describeWithStock } from "../support/stock-tools.js";

describeWithStock("lists of options, and options that there are none of", () => {
  const folders = new BothFolders();

  beforeAll(() => folders.make("qemu-img create -q -f qcow2 a.qcow2 1M", "qemu-img create -q -f raw b.raw 1M"));

  describe("print and fail as by the stock tool", () => {
    it.each([
      "create -f qcow2 -o help",
      "create -f qcow2 -o help x",
      "create -f qcow2 -o ? x 1M",
      "create -f qcow2 -o cluster_size=4k,help x 1M",
      "create -f qcow2 -o cluster_size=4k -o help x 1M",
      "create -f qcow2 -o help,bogus=1 x",
      "create -f raw -o help",
      "create -o help x.raw",
      "create -f bogus -o help",
      "create -f qcow2 -o help=1 x 1M",
      "create -f qcow2 -o bogus=1 x 1M",
      "create -f raw -o cluster_size=4k x 1M",
      "create -f qcow2 -o nocow=on n1 1M",
      "create -f raw -o nocow=on,preallocation=off,extent_size_hint=1M n2 1M",
      "create -f qcow2 -o nocow=maybe n3 1M",
      "create -f qcow2 -o extent_size_hint=x n4 1M",
      "convert -O qcow2 -o help",
      "convert -O qcow2 -o help missing x",
      "convert -O raw -o help a.qcow2 x",
      "convert -o help",
      "convert -n -O raw -o help a.qcow2 x",
      "convert -O bogus -o help",
      "convert -O qcow2 -o cluster_size=4k,? a.qcow2 x",
      "convert -O qcow2 -o bogus=1 a.qcow2 x",
      "convert -O raw -o bogus=1 a.qcow2 x",
      "amend -o help",
      "amend -f qcow2 -o help",
      "amend -f raw -o help",
      "amend -f bogus -o help",
      "amend -o help a.qcow2",
      "amend -o help b.raw",
      "amend -o help,bogus a.qcow2",
      "amend -o help a.qcow2 b.raw",
      "amend -o bogus=1 a.qcow2",
      "amend -o cluster_size=4k a.qcow2",
      "amend -o compat=1.1",
      "amend -o compat=1.1 b.raw",
      "measure -O qcow2 -o help --size 1M",
      "measure -O qcow2 -o bogus=1 --size 1M",
      "bitmap --remove b.raw x",
      "bitmap --clear -f raw b.raw x",
    ])("%s", async (line) => {
      await folders.expectSame(line);
    });
  });
});
