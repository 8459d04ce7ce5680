import type { Field } from "./places.js";

/** The fields of a qcow2 header behind its magic; those from offset 72 on are there in version 3. */
export const HEADER_FIELDS: readonly Field[] = [
  { name: "version", at: 4, width: 4 },
  { name: "backing_file_offset", at: 8, width: 8 },
  { name: "backing_file_size", at: 16, width: 4 },
  { name: "cluster_bits", at: 20, width: 4 },
  { name: "size", at: 24, width: 8 },
  { name: "crypt_method", at: 32, width: 4 },
  { name: "l1_size", at: 36, width: 4 },
  { name: "l1_table_offset", at: 40, width: 8 },
  { name: "refcount_table_offset", at: 48, width: 8 },
  { name: "refcount_table_clusters", at: 56, width: 4 },
  { name: "nb_snapshots", at: 60, width: 4 },
  { name: "snapshots_offset", at: 64, width: 8 },
  { name: "incompatible_features", at: 72, width: 8 },
  { name: "compatible_features", at: 80, width: 8 },
  { name: "autoclear_features", at: 88, width: 8 },
  { name: "refcount_order", at: 96, width: 4 },
  { name: "header_length", at: 100, width: 4 },
  { name: "compression_type", at: 104, width: 1 },
];
