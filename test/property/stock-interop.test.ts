import { describeStockInterop } from "../support/stock-interop.js";

/** One of each kind; all of them, for longer, in the long suite. */
const CHOSEN = [
  "cluster_size=512,compat=0.10",
  "cluster_size=4k,refcount_bits=1",
  "cluster_size=4k,lazy_refcounts=on",
  "cluster_size=64k,preallocation=metadata",
  "extended_l2=on,cluster_size=16k",
  "cluster_size=64k,refcount_bits=1",
  "cluster_size=4k,refcount_bits=2,compression_type=zstd",
];

describeStockInterop(({ options }) => CHOSEN.includes(options), 2);
