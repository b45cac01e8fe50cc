// One small line chart over time, drawn by uPlot. The table beside it says the same in words.

import { bits } from "./words.js";

const HEIGHT = 132;
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");

export class Line {
  constructor(host, { colour, format, floor = 0 }) {
    Object.assign(this, { host, colour, format, floor, data: [[], []], plot: null });
    new ResizeObserver(() => this.fit()).observe(host);
    dark.addEventListener("change", () => this.draw());
  }

  show(times, values) {
    this.data = [times, values];
    if (this.plot) this.plot.setData(this.data);
    else if (times.length) this.draw();
  }

  fit() {
    const width = Math.floor(this.host.clientWidth);
    if (this.plot && width > 0) this.plot.setSize({ width, height: HEIGHT });
  }

  draw() {
    this.plot?.destroy();
    const stroke = token(this.colour);
    const axis = { stroke: token("--soft"), grid: { stroke: token("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    this.plot = new window.uPlot({
      width: Math.max(120, Math.floor(this.host.clientWidth)),
      height: HEIGHT,
      padding: [8, 28, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: { y: { range: (_, low, high) => [0, Math.max(this.floor, (high ?? 1) * 1.25)] } },
      axes: [
        { ...axis, grid: { show: false }, space: 90, size: 28, values: (_, ticks) => ticks.map(clock) },
        { ...axis, size: 74, gap: 6, space: 36, values: (_, ticks) => ticks.map(this.format) },
      ],
      series: [{}, { stroke, width: 2, fill: `${stroke}14`, points: { show: (u) => u.data[0].length < 3, size: 6, fill: stroke } }],
    }, this.data, this.host);
  }
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
export const percent = (value) => `${(100 * value).toFixed(value < 0.02 && value > 0 ? 1 : 0)} %`;
export const rate = (value) => `${bits(value)}/s`;
export const axisRate = (value) => (value >= 1e6 ? `${value / 1e6} Mbit/s` : value >= 1e3 ? `${value / 1e3} kbit/s` : `${value} bit/s`);
