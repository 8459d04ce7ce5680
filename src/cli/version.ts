import type { CommandContext } from "./context.js";

/** Set by the build from package.json; running from source there is none. */
declare const ZCOW_VERSION: string | undefined;

/** The release of the stock tools whose command lines and texts are followed; scripts decide by it what they may ask for. */
const STOCK_VERSION = "7.2.0";

const OWN_VERSION = `zcow ${typeof ZCOW_VERSION === "undefined" ? "(from source)" : ZCOW_VERSION}`;

/** What `--version` prints. */
export function versionText(context: CommandContext): string {
  return context.standIn ? `${context.program} version ${STOCK_VERSION} (${OWN_VERSION})\n` : `${OWN_VERSION}\n`;
}
