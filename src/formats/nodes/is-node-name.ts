const NODE_NAME = /^(?:json|blkdebug|blkverify|null-co|null-aio):/;

/** True for names that stand for more than a file or the export of a server: `json:{...}`, `blkdebug:...`, `blkverify:...`, `null-co://`. */
export function isNodeName(name: string): boolean {
  return NODE_NAME.test(name);
}
