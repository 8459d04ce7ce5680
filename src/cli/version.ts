/** Set by the build from package.json; running from source there is none. */
declare const ZCOW_VERSION: string | undefined;

/** What `--version` prints. */
export const VERSION_TEXT = `zcow ${typeof ZCOW_VERSION === "undefined" ? "(from source)" : ZCOW_VERSION}\n`;
