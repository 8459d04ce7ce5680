// The walls of the house (docs/architecture.md). Each layer may import only what stands to its left:
// base <- {codec, host, zoned} <- storage <- block <- formats <- jobs <- servers <- cli; protocols sit between block and servers.

/** What each layer may import besides itself. */
const MAY_IMPORT = {
  base: [],
  codec: ["base"],
  host: ["base"],
  zoned: ["base"],
  storage: ["base", "codec", "host", "zoned"],
  block: ["base", "codec", "host", "zoned", "storage"],
  formats: ["base", "codec", "host", "zoned", "storage", "block"],
  jobs: ["base", "codec", "host", "zoned", "storage", "block", "formats"],
  // Wire codecs and sessions: no file and no socket, so no storage either.
  protocols: ["base", "codec", "zoned", "block"],
  servers: ["base", "codec", "host", "zoned", "storage", "block", "formats", "jobs", "protocols"],
  cli: ["base", "codec", "host", "zoned", "storage", "block", "formats", "jobs", "protocols", "servers"],
};

const layerRules = Object.entries(MAY_IMPORT).map(([layer, below]) => ({
  name: `${layer}-imports-only-what-is-below`,
  severity: "error",
  from: { path: `^src/${layer}/` },
  to: { path: "^src/", pathNot: `^src/(${[layer, ...below].join("|")})/` },
}));

/** Node's own modules that give access to files, sockets or processes. */
const FILES = "^(node:)?(fs|fs/promises|child_process|worker_threads)$";
const SOCKETS = "^(node:)?(net|tls|http|https|http2|dgram)$";

module.exports = {
  forbidden: [
    ...layerRules,
    {
      name: "command-is-not-a-library",
      comment: "The public surface never pulls in the command line.",
      severity: "error",
      from: { path: "^src/(index\\.ts$|entry/)" },
      to: { path: "^src/cli/" },
    },
    {
      name: "only-entries-import-entries",
      comment: "src/index.ts and src/entry are the public surface; nothing inside depends on it.",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/(index\\.ts$|entry/)" },
      to: { path: "^src/(index\\.ts$|entry/)" },
    },
    {
      name: "pure-layers-use-no-node-api",
      comment: "base and zoned run anywhere JavaScript runs.",
      severity: "error",
      from: { path: "^src/(base|zoned)/" },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "codec-touches-no-file-and-no-socket",
      severity: "error",
      from: { path: "^src/codec/" },
      to: { path: `${FILES}|${SOCKETS}` },
    },
    {
      name: "files-only-in-host-storage-servers-and-cli",
      comment: "Everything else reaches bytes through the Storage contract.",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/(host|storage|servers|cli)/" },
      to: { path: FILES },
    },
    {
      name: "sockets-only-in-servers-cli-and-remote-storages",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/(servers|cli|storage/nbd)/" },
      to: { path: SOCKETS },
    },
    {
      name: "native-helper-only-in-host",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/host/" },
      to: { path: "(^|/)koffi(/|$)" },
    },
    {
      name: "command-line-parser-only-in-cli",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/cli/" },
      to: { path: "(^|/)commander(/|$)" },
    },
    {
      name: "no-development-package-in-the-library",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/cli/" },
      to: { dependencyTypes: ["npm-dev"], pathNot: "node_modules/@types/node" },
    },
    {
      name: "product-does-not-import-its-tests",
      severity: "error",
      from: { path: "^src/" },
      to: { path: "^(test|bench|scripts)/" },
    },
    {
      name: "no-circular",
      severity: "error",
      from: { path: "^src/" },
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    { name: "resolvable", severity: "error", from: { path: "^src/" }, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "types", "node", "default"] },
  },
};
