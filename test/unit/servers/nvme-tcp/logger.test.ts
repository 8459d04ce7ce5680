import { describe, expect, test } from "vitest";
import { lineLogger } from "../../../../src/servers/nvme-tcp/logger.js";
import { renderMetrics } from "../../../../src/servers/nvme-tcp/metrics.js";

describe("the log", () => {
  const lines: string[] = [];
  let second = 0;
  const now = (): Date => new Date(Date.UTC(2026, 0, 1) + second * 1000);

  test("JSON lines are JSON, whatever a peer puts into a name", () => {
    lines.length = 0;
    lineLogger("json", (line) => lines.push(line), now).warn("refused", { host: 'a"\n\u0000b', port: 1, tls: false });
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0] ?? "")).toEqual({
      time: "2026-01-01T00:00:00.000Z",
      level: "warn",
      event: "refused",
      host: 'a"\n\u0000b',
      port: 1,
      tls: false,
    });
  });

  test("text lines stay one line each", () => {
    lines.length = 0;
    lineLogger("text", (line) => lines.push(line), now).info("gone", {
      host: "x\ny level=error",
      port: undefined,
      n: 3,
    });
    expect(lines).toEqual(['2026-01-01T00:00:00.000Z info gone host="x\\ny level=error" n=3\n']);
  });

  test("long values are cut", () => {
    lines.length = 0;
    lineLogger("json", (line) => lines.push(line), now).info("long", { name: "x".repeat(100_000) });
    expect(lines[0]?.length).toBeLessThan(700);
  });

  test("a flood of one event is thinned out and counted, and hides no other", () => {
    lines.length = 0;
    const log = lineLogger("json", (line) => lines.push(line), now);
    for (let i = 0; i < 1000; i++) log.warn("flood");
    log.error("fire");
    expect(lines).toHaveLength(11);
    second++;
    log.warn("flood");
    expect(JSON.parse(lines[11] ?? "")).toMatchObject({ event: "flood", suppressed: 990 });
  });
});

test("metrics have the text format of Prometheus, with labels escaped", () => {
  const text = renderMetrics([
    { name: "a_total", help: "Some.", type: "counter", samples: [{ value: 3 }] },
    { name: "b", help: "More.", type: "gauge", samples: [{ labels: { path: 'x"\\\n', n: "1" }, value: 0.5 }] },
  ]);
  expect(text).toBe(
    '# HELP a_total Some.\n# TYPE a_total counter\na_total 3\n# HELP b More.\n# TYPE b gauge\nb{path="x\\"\\\\\\n",n="1"} 0.5\n',
  );
});
