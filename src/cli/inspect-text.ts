import { formatSize } from "../base/size-text.js";
import type { InspectReport } from "../jobs/inspect/report.js";

/** A report as `--output json` has it: the keys of the stock tools' JSON where there are such. */
export function inspectTree(report: InspectReport): object {
  const { resources } = report;
  return {
    filename: report.filename,
    format: report.format,
    marks: report.marks,
    "file-size": report.fileSize,
    "actual-size": report.actualSize,
    "virtual-size": report.virtualSize,
    references: report.references,
    resources: {
      "tables-in-memory": resources.tablesInMemory,
      "tables-when-full": resources.tablesWhenFull,
      "when-expanded": resources.whenExpanded,
    },
    findings: report.findings,
    verdict: report.verdict,
  };
}

const VERDICTS: Readonly<Record<InspectReport["verdict"], string>> = {
  none: "nothing against it",
  decision: "decide first",
  danger: "danger",
};

/** A report for people. Names from the image are shown without what a terminal would obey. */
export function inspectText(report: InspectReport): string {
  const { resources } = report;
  const rows: readonly (readonly [string, string | undefined])[] = [
    ["image", printable(report.filename)],
    ["format", report.format],
    ["virtual size", size(report.virtualSize)],
    ["file size", size(report.fileSize)],
    ["disk size", size(report.actualSize)],
    ["tables in memory", size(resources.tablesInMemory)],
    ["tables when full", size(resources.tablesWhenFull)],
  ];
  const facts = rows.flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}`]));
  const findings = report.findings.map(({ level, message }) => `${level.padEnd(8)}  ${printable(message)}`);
  const list = findings.length === 0 ? [] : ["", ...findings];
  return `${[...facts, ...list, "", `verdict: ${VERDICTS[report.verdict]}`].join("\n")}\n`;
}

function size(bytes: number | undefined): string | undefined {
  return bytes === undefined ? undefined : `${formatSize(bytes)} (${bytes} bytes)`;
}

/** Control characters as `\xNN`. */
function printable(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}`,
  );
}
