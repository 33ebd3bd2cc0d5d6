// Draws the table of steps as charts. Whoever can't see them, or has no JavaScript, has the table.
"use strict";
const TONES = {
  calls: "--accent", refused: "--warn", errors: "--bad", p50: "--ok", p95: "--accent", p99: "--bad", first: "--muted", cost: "--accent",
};
const WORDS = { calls: "Calls", refused: "Refused", errors: "Errors", p50: "p50", p95: "p95", p99: "p99", first: "First token", cost: "USD" };
let drawn = [];

function read(table, name) {
  return [...table.querySelectorAll(`[data-of="${name}"]`)].map((cell) => {
    const number = Number(cell.textContent);
    return cell.textContent.trim() === "–" ? null : number;
  });
}

function tone(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(TONES[name]).trim();
}

function options(names, width) {
  const line = { stroke: getComputedStyle(document.body).color, grid: { stroke: getComputedStyle(document.documentElement).getPropertyValue("--line") } };
  return {
    width, height: 180, cursor: { y: false }, legend: { live: false },
    series: [{}, ...names.map((name) => ({ label: WORDS[name], stroke: tone(name), width: 2, spanGaps: false, points: { size: 4 } }))],
    axes: [line, { ...line, size: 56 }],
    scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1e-9) * 1.1] } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
  };
}

function draw() {
  drawn.forEach((chart) => chart.destroy());
  drawn = [];
  const table = document.getElementById("steps");
  if (!table || !window.uPlot) return;
  const times = [...table.querySelectorAll("time")].map((time) => Date.parse(time.dateTime) / 1000);
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const names = figure.dataset.chart.split(" ");
    const chart = new uPlot(options(names, figure.clientWidth - 24), [times, ...names.map((name) => read(table, name))], figure);
    chart.root.setAttribute("aria-hidden", "true");
    drawn.push(chart);
  }
}

draw();
document.addEventListener("refreshed", draw);
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
