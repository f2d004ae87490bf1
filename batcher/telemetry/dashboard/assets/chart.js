// A line chart: time to the right, from 0 upwards, in plain SVG.

import { draw, make, text } from "./dom.js";
import { minute, time } from "./format.js";

const HEIGHT = 150;
const LEFT = 46;
const BOTTOM = 18;
const TOP = 8;
const GAP_S = 25;

const lift = (value) => TOP + (1 - value) * (HEIGHT - TOP - BOTTOM);

// The smallest round number that holds the largest value, for three lines.
function ceiling(largest, base) {
  if (!(largest > 0)) return base === 1024 ? 1024 : 1;
  const unit = base === 1024 ? 1024 ** Math.floor(Math.log(largest) / Math.log(1024)) : 1;
  const scaled = largest / unit;
  const power = 10 ** Math.floor(Math.log10(scaled));
  const step = [1, 2, 3, 4, 5, 6, 8, 10].find((one) => one * power >= scaled);
  return step * power * unit;
}

export class Chart {
  constructor(host, name, series, format, base = 1000) {
    this.host = host;
    this.name = name;
    this.series = series;
    this.format = format;
    this.base = base;
    this.at = null;
    this.svg = draw("svg", { role: "img", "aria-label": name });
    this.values = series.map(() => make("b"));
    const legend = make("div", { class: "legend" });
    series.forEach((one, index) => legend.append(make("span", {}, make("i", { class: one.class }), `${one.name} `, this.values[index])));
    this.when = make("span");
    legend.append(this.when);
    host.append(this.svg, legend);
    this.svg.addEventListener("pointermove", (event) => this.look(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.look(null));
    new ResizeObserver(() => this.render()).observe(host);
  }

  // The points as columns, the first and the last moment that is shown.
  set(columns, from, to) {
    Object.assign(this, { columns, from, to });
    this.render();
  }

  look(x) {
    this.x = x;
    this.render();
  }

  render() {
    const width = this.host.clientWidth;
    if (!this.columns || !width) return;
    const { t } = this.columns;
    const first = Math.max(0, t.findIndex((one) => one >= this.from));
    const across = (moment) => LEFT + ((moment - this.from) / (this.to - this.from)) * (width - LEFT - 2);
    let largest = 0;
    const lines = this.series.filter((one) => one.class !== "words");
    for (const one of lines) for (let at = first; at < t.length; at += 1) largest = Math.max(largest, one.of[at] ?? 0);
    const top = ceiling(largest, this.base);
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const y = Math.round(lift(share)) + 0.5;
      parts.push(draw("line", { class: "axis", x1: LEFT, x2: width, y1: y, y2: y }));
      parts.push(draw("text", { x: LEFT - 7, y: y + 4, "text-anchor": "end" }, this.format(top * share)));
    }
    const span = this.to - this.from;
    const step = [15, 30, 60, 300, 900].find((one) => span / one <= Math.max(2, width / 90)) ?? 900;
    const label = step < 60 ? time : minute;
    for (let moment = Math.ceil(this.from / step) * step; moment <= this.to; moment += step) {
      const x = across(moment);
      if (x > LEFT + 26 && x < width - 26) parts.push(draw("text", { x, y: HEIGHT - 2, "text-anchor": "middle" }, label(moment)));
    }
    // Not more points than the screen has: the largest of each group stands for it.
    const group = Math.max(1, Math.floor((t.length - first) / Math.max(1, width - LEFT)));
    for (const one of lines) {
      let path = "";
      let area = "";
      let begin = null;
      let last = null;
      const close = () => {
        if (begin !== null) area += `L${last.toFixed(1)} ${lift(0)}L${begin.toFixed(1)} ${lift(0)}Z`;
      };
      let lastMoment = -Infinity;
      for (let at = first; at < t.length; at += group) {
        let value = null;
        for (let inner = at; inner < Math.min(at + group, t.length); inner += 1) {
          const found = one.of[inner];
          if (found != null && (value == null || found > value)) value = found;
        }
        if (value == null) continue;
        const x = across(t[at]);
        const y = lift(value / top);
        const joined = t[at] - lastMoment <= GAP_S;
        if (!joined) {
          close();
          begin = x;
        }
        path += `${joined ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
        area += `${joined ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
        last = x;
        lastMoment = t[at];
      }
      close();
      if (one.filled) parts.push(draw("path", { class: `area ${one.class}`, d: area }));
      parts.push(draw("path", { class: `line ${one.class}`, d: path }));
    }
    let chosen = t.length - 1;
    if (this.x != null && this.x >= LEFT && t.length) {
      const moment = this.from + ((this.x - LEFT) / (width - LEFT - 2)) * span;
      for (let at = first; at < t.length; at += 1) if (Math.abs(t[at] - moment) < Math.abs(t[chosen] - moment)) chosen = at;
      const x = across(t[chosen]);
      parts.push(draw("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }));
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(...parts);
    this.series.forEach((one, index) => text(this.values[index], this.format(latest(one.of, chosen))));
    text(this.when, this.x != null && chosen >= 0 ? `at ${time(t[chosen])}` : "");
    this.svg.setAttribute("aria-label", `${this.name}: ${this.series.map((one) => `${one.name} ${this.format(latest(one.of, chosen))}`).join(", ")}`);
  }
}

// The value at a place, or the one before it where nothing was written in that second.
function latest(values, at) {
  for (let back = at; back >= 0 && back > at - 15; back -= 1) if (values[back] != null) return values[back];
  return null;
}

// The mean of the last five points, which is what a line of lumps is read as anyway.
export function smoothed(values) {
  const found = [];
  for (let at = 0; at < values.length; at += 1) {
    let sum = 0;
    let count = 0;
    for (let back = Math.max(0, at - 4); back <= at; back += 1) {
      if (values[back] != null) {
        sum += values[back];
        count += 1;
      }
    }
    found.push(count ? sum / count : null);
  }
  return found;
}
