import { join } from "node:path";
import { type Contestant, qemuBench, type RequestRow, subject, wholeProcess } from "./contestants.js";
import type { BenchImages } from "./images.js";

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** How a case is won. `ratio`: peer time / our time is at least that. `extraMilliseconds`: we take at most that much longer. */
export type Goal = { readonly ratio: number } | { readonly extraMilliseconds: number };

export interface Peer {
  readonly name: string;
  readonly goal: Goal;
  readonly run: Contestant;
}

export interface Case {
  readonly name: string;
  /** Requests per run, to turn seconds into a rate; 1 for whole processes. */
  readonly requests: number;
  readonly prepare?: () => void;
  readonly ours: Contestant;
  readonly peers: readonly Peer[];
  /** What else there is to say once all rounds are run. */
  readonly remark?: () => string;
}

export interface CaseContext {
  readonly images: BenchImages;
  readonly directory: string;
  readonly zcow: string;
  /** The peer was built with io_uring and the kernel allows it. */
  readonly ioUring: boolean;
  /** Scales request counts, for a quick look. */
  readonly scale: number;
}

const SIZE = 512 * MIB;
/** Odd number of blocks: visits every block once before it comes round, never near the one before. */
const SCATTER = 100_003 * 4 * KIB;

function threadsAndRing(context: CaseContext, row: RequestRow, threads: number, ring: number | undefined): Peer[] {
  const peers: Peer[] = [
    { name: "qemu-img bench", goal: { ratio: threads }, run: () => qemuBench(row, context.directory) },
  ];
  if (ring !== undefined && context.ioUring) {
    const run = () => qemuBench(row, context.directory, "io_uring");
    peers.push({ name: "qemu-img bench -i io_uring", goal: { ratio: ring }, run });
  }
  return peers;
}

function scattered(context: CaseContext, kind: "read" | "write", depth: number): Case {
  const image = context.images.allocated(SIZE);
  const count = Math.round(300_000 * context.scale);
  const row: RequestRow = { image, kind, count, depth, size: 4 * KIB, step: SCATTER };
  return {
    name: `${kind === "read" ? "random reads" : "overwrites"} 4 KiB, depth ${depth}`,
    requests: count,
    prepare: () => context.images.warm(image),
    ours: () => subject(row, context.directory),
    peers: kind === "read" ? threadsAndRing(context, row, 3, 1.3) : threadsAndRing(context, row, 2, undefined),
  };
}

/** Every run writes a fresh image from start to end. */
function allocating(context: CaseContext, kind: "write" | "append", depth: number): Case {
  const { images, directory } = context;
  const count = Math.min(SIZE / (64 * KIB), Math.round((SIZE / (64 * KIB)) * context.scale));
  const row = { count, depth, size: 64 * KIB, step: 64 * KIB };
  const oursOn = () => (kind === "append" ? images.emptyZoned(SIZE, 64 * MIB) : images.empty("ours", SIZE));
  return {
    name: `${kind === "append" ? "zone appends" : "allocating writes"} 64 KiB in sequence, depth ${depth}`,
    requests: count,
    ours: () => subject({ ...row, kind, image: oursOn() }, directory),
    peers: [
      {
        name: "qemu-img bench -w",
        goal: { ratio: 1 },
        run: () => qemuBench({ ...row, kind: "write", image: images.empty("peer", SIZE) }, directory),
      },
    ],
  };
}

function directReads(context: CaseContext): Case {
  const image = context.images.allocated(SIZE);
  const count = Math.round(60_000 * context.scale);
  const row: RequestRow = { image, kind: "read", count, depth: 64, size: 4 * KIB, step: SCATTER, direct: true };
  return {
    name: "random reads 4 KiB past the page cache, depth 64",
    requests: count,
    ours: () => subject(row, context.directory),
    peers: [{ name: "qemu-img bench -t none", goal: { ratio: 0.9 }, run: () => qemuBench(row, context.directory) }],
  };
}

function processes(context: CaseContext): Case[] {
  const { directory, images, zcow } = context;
  const large = images.preallocated(256 * GIB);
  const small = images.allocated(SIZE);
  const node = process.execPath;
  const nothing = () => wholeProcess(node, ["-e", "0"], directory);
  return [
    {
      name: "open a 256 GiB image with all tables",
      requests: 1,
      ours: () => wholeProcess(node, [join(import.meta.dirname, "open/open-subject.cjs"), large], directory),
      peers: [{ name: "node -e 0", goal: { ratio: 1 / 1.5 }, run: nothing }],
    },
    {
      name: "check a 256 GiB image with all tables",
      requests: 1,
      ours: () => wholeProcess(node, [zcow, "check", "-f", "qcow2", large], directory),
      peers: [
        {
          name: "qemu-img check",
          goal: { ratio: 1 / 0.67 },
          run: () => wholeProcess("qemu-img", ["check", "-f", "qcow2", large], directory),
        },
      ],
    },
    {
      name: "zcow info",
      requests: 1,
      ours: () => wholeProcess(node, [zcow, "info", "-f", "qcow2", small], directory),
      peers: [{ name: "node -e 0", goal: { extraMilliseconds: 25 }, run: nothing }],
    },
  ];
}

/** Both images hold the same, so everything but holes is read. */
function comparing(context: CaseContext): Case {
  const { directory, images, zcow } = context;
  const size = 2 * GIB;
  const args = (): string[] => {
    const { raw, qcow2 } = images.mixed(size);
    return ["compare", "-f", "raw", "-F", "qcow2", raw, qcow2];
  };
  return {
    name: "compare 2 GiB of mixed data",
    requests: 1,
    prepare: () => Object.values(images.mixed(size)).forEach((path) => images.warm(path)),
    ours: () => wholeProcess(process.execPath, [zcow, ...args()], directory),
    peers: [
      {
        name: "qemu-img compare",
        goal: { ratio: 1 / 0.67 },
        run: () => wholeProcess("qemu-img", args(), directory),
      },
    ],
  };
}

export function allCases(context: CaseContext): Case[] {
  return [
    scattered(context, "read", 1),
    scattered(context, "read", 64),
    scattered(context, "write", 1),
    scattered(context, "write", 64),
    allocating(context, "write", 1),
    allocating(context, "write", 64),
    allocating(context, "append", 1),
    allocating(context, "append", 64),
    directReads(context),
    ...processes(context),
    comparing(context),
  ];
}
