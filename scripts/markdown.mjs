// The little of Markdown that the documentation checks need: links, anchors, fenced code.

/**
 * @typedef {object} CodeBlock
 * @property {string} info what stands after the opening fence: "ts", "console", "ts no-run"
 * @property {number} line line of the opening fence, from 1
 * @property {string} text
 */

/**
 * Fenced code blocks, and the lines outside them.
 * @param {string} markdown
 * @returns {{ blocks: CodeBlock[], prose: { line: number, text: string }[] }}
 */
export function splitMarkdown(markdown) {
  /** @type {CodeBlock[]} */
  const blocks = [];
  /** @type {{ line: number, text: string }[]} */
  const prose = [];
  /** @type {{ info: string, line: number, lines: string[] } | undefined} */
  let open;
  for (const [index, text] of markdown.split("\n").entries()) {
    const fence = /^ {0,3}```(.*)$/.exec(text);
    if (open === undefined && fence) open = { info: (fence[1] ?? "").trim(), line: index + 1, lines: [] };
    else if (open !== undefined && fence) {
      blocks.push({ info: open.info, line: open.line, text: `${open.lines.join("\n")}\n` });
      open = undefined;
    } else if (open !== undefined) open.lines.push(text);
    else prose.push({ line: index + 1, text });
  }
  return { blocks, prose };
}

/**
 * Targets of inline links and images, with their line.
 * @param {string} markdown
 */
export function linkTargets(markdown) {
  return splitMarkdown(markdown).prose.flatMap(({ line, text }) =>
    [...text.replaceAll(/`[^`]*`/g, "").matchAll(/\]\(([^)\s]+)(?:\s+"[^"]*")?\)/g)].map((match) => ({
      line,
      target: match[1] ?? "",
    })),
  );
}

/**
 * Anchors of all headings, as GitHub makes them.
 * @param {string} markdown
 */
export function headingAnchors(markdown) {
  /** @type {Map<string, number>} */
  const seen = new Map();
  const anchors = new Set();
  for (const { text } of splitMarkdown(markdown).prose) {
    const heading = /^#{1,6}\s+(.*?)\s*#*$/.exec(text)?.[1];
    if (heading === undefined) continue;
    const slug = heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .replaceAll(/\s/g, "-");
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    anchors.add(count === 0 ? slug : `${slug}-${count}`);
  }
  return anchors;
}
