// The charts of one version: throughput, latency, where the time goes, batches, queue, failures.

import { Chart } from "./chart.js";
import { h } from "./dom.js";
import { count, duration, number, words } from "./format.js";
import { failureReasons, ofVersion } from "./series.js";

export class VersionCharts {
  #charts;

  constructor(store, model, version) {
    this.store = store;
    const line = (pick, idle = 0) => ofVersion(this.store.points, model, version, pick, idle);
    const perSecond = (value) => `${number(value)} /s`;
    this.#charts = [
      [
        new Chart({ title: "Throughput", unit: "per second", format: perSecond }),
        () => [
          { name: "requests", values: line((e) => e.requests_per_s) },
          { name: "rows", values: line((e) => e.rows_per_s) },
        ],
      ],
      [
        new Chart({ title: "Latency", unit: "ms", format: duration }),
        () => [
          { name: "p50", values: line((e) => e.latency_ms?.p50, null) },
          { name: "p95", values: line((e) => e.latency_ms?.p95, null) },
          { name: "p99", values: line((e) => e.latency_ms?.p99, null) },
        ],
      ],
      [
        new Chart({ title: "Where the time goes, p95", unit: "ms", format: duration }),
        () => [
          { name: "waiting in the queue", values: line((e) => e.queue_ms?.p95, null) },
          { name: "running", values: line((e) => e.compute_ms?.p95, null) },
        ],
      ],
      [
        new Chart({ title: "Rows in a run", unit: "rows", format: number, least: 1 }),
        () => [{ name: "rows", values: line((e) => e.rows_per_run, null) }],
      ],
      [
        new Chart({ title: "Waiting", unit: "requests", format: count, least: 1 }),
        () => [{ name: "waiting", values: line((e) => e.waiting) }],
      ],
      [
        new Chart({ title: "Failures", unit: "per second", format: perSecond }),
        () => {
          const reasons = failureReasons(this.store.points, model, version);
          const named = reasons.length > 5 ? reasons.slice(0, 4) : reasons;
          const lines = named.map((reason) => ({
            name: words(reason),
            values: line((e) => e.failures_per_s?.[reason] ?? 0),
          }));
          if (named.length < reasons.length) {
            const rest = reasons.slice(4);
            lines.push({
              name: "others",
              values: line((e) => rest.reduce((sum, reason) => sum + (e.failures_per_s?.[reason] ?? 0), 0)),
            });
          }
          return lines.length ? lines : [{ name: "failures", values: line(() => 0) }];
        },
      ],
    ];
    this.element = h(
      "section.charts",
      { "aria-label": `The last five minutes of version ${version}` },
      this.#charts.map(([chart]) => chart.element),
    );
  }

  update() {
    for (const [chart, lines] of this.#charts) chart.update(lines());
  }

  leave() {
    for (const [chart] of this.#charts) chart.leave();
  }
}
