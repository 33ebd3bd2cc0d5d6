// Draws the table of steps as charts. Whoever can't see them, or has no JavaScript, has the table.
"use strict";
const TONES = {
  calls: "--accent", refused: "--warn", errors: "--bad", p50: "--ok", p95: "--accent", p99: "--bad", first: "--muted", cost: "--accent",
};
const WORDS = { calls: "Calls", refused: "Refused", errors: "Errors", p50: "p50", p95: "p95", p99: "p99", first: "First token", cost: "USD" };
const DAY = 86400;
// uPlot's own are American and of twelve hours. Smallest step; text; text where year, month, day, minute or hour begins.
const CLOCK = [
  [28 * DAY, "{YYYY}-{MM}", null, null, null, null, null, null, 1],
  [DAY, "{MM}-{DD}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
];
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

// A value between two gaps has no line: whoever has a call an hour would see nothing.
function alone(chart, series, allOfThem) {
  const values = chart.data[series];
  return allOfThem ? null : [...values.keys()].filter((i) => values[i] !== null && (values[i - 1] ?? values[i + 1] ?? null) === null);
}

// uPlot's own stop at three decimals: of a cent's thousandth nothing would be left.
function figures(_, marks) {
  return marks.map((mark) => mark.toLocaleString("en-US", { maximumSignificantDigits: 6 }));
}

// Pixels beside the chart: as many as the longest of its figures takes.
function room(_, words) {
  return Math.max(56, 20 + 8 * Math.max(0, ...(words ?? []).map((word) => word.length)));
}

function options(names, width) {
  const line = { stroke: getComputedStyle(document.body).color, grid: { stroke: getComputedStyle(document.documentElement).getPropertyValue("--line") } };
  return {
    width, height: 180, cursor: { y: false }, legend: { live: false },
    series: [{}, ...names.map((name) => ({ label: WORDS[name], stroke: tone(name), width: 2, spanGaps: false, points: { size: 4, filter: alone } }))],
    axes: [{ ...line, values: CLOCK }, { ...line, size: room, values: figures }],
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
