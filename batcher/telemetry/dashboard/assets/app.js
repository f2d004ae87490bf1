// The page: one stream of events in, everything else is made of it.

import { Chart, smoothed } from "./chart.js";
import * as control from "./control.js";
import { find, text } from "./dom.js";
import { compact, duration, rate, size, time } from "./format.js";
import * as view from "./view.js";

const HOUR_S = 3600;
const SILENT_MS = 5000;
const HIDDEN_MS = 20000;
const AGAIN_MS = 3000;

let about = null;
let history = null;
let now = null;
let source = null;
let heardAt = 0;
let hiddenTimer = 0;
let broken = "";

const speed = new Chart(find("chart-speed"), "Records a second", [
  { name: "written", class: "one", filled: true, of: [] },
  { name: "read", class: "two", of: [] },
], (value) => (value == null ? "–" : value >= 1000 ? compact(value) : rate(value)));
const lag = new Chart(find("chart-lag"), "Behind, in records", [{ name: "behind", class: "one", filled: true, of: [] }], compact);
const fresh = new Chart(find("chart-fresh"), "Age of records when durable", [
  { name: "p50", class: "one", filled: true, of: [] },
  { name: "p99", class: "two", of: [] },
], duration);
const memory = new Chart(find("chart-memory"), "Buffer", [
  { name: "buffer", class: "one", filled: true, of: [] },
  { name: "whole process", class: "words", of: [] },
], size, 1024);

function charts() {
  const back = Number(document.querySelector("input[name=range]:checked").value);
  const to = history.t.length ? history.t.at(-1) : Date.now() / 1000;
  // What has just begun fills the width all the same.
  const from = Math.max(to - back, Math.min(history.t[0] ?? to, to - 60));
  const pairs = [
    [speed, [smoothed(history.written), smoothed(history.read)]],
    [lag, [history.lag]],
    [fresh, [history.p50, history.p99]],
    [memory, [history.buffer, history.rss]],
  ];
  for (const [chart, values] of pairs) {
    chart.series.forEach((one, at) => {
      one.of = values[at];
    });
    chart.set(history, from, to);
  }
}

function add(point) {
  for (const name of Object.keys(history)) history[name].push(point[name] ?? null);
  const old = history.t.findIndex((t) => t >= point.t - HOUR_S);
  if (old > 60) for (const name of Object.keys(history)) history[name].splice(0, old);
}

function render() {
  if (!now) return;
  view.header(now);
  view.glance(now);
  view.tiles(now);
  view.workers(now);
  view.targets(now);
  view.partitions(now);
  view.batches(now);
  view.troubles(now);
  view.letters(now, about);
  view.lost(now);
  charts();
}

function heard(kind, message) {
  heardAt = Date.now();
  broken = "";
  const facts = JSON.parse(message.data);
  if (kind === "hello") {
    ({ about, history, now } = facts);
    view.settings(about);
    control.begin(about);
  } else {
    now = facts;
    add(now.point);
  }
  render();
  document.body.dataset.ready = now ? "yes" : "";
  link();
}

function link() {
  const lost = Boolean(source) && Date.now() - heardAt > SILENT_MS;
  document.body.classList.toggle("stale", lost && Boolean(now));
  const element = find("link");
  element.dataset.state = lost ? "lost" : "live";
  const word = lost ? `no connection; ${broken || (now ? `numbers of ${time(now.at)}` : "trying again")}` : now ? "live" : "connecting …";
  text(element, word);
}

function open() {
  if (source) source.close();
  source = new EventSource("events");
  source.addEventListener("hello", (message) => heard("hello", message));
  source.addEventListener("tick", (message) => heard("tick", message));
  source.addEventListener("error", () => {
    // A refusal closes it for good; a lost connection is tried again by the browser itself.
    if (source && source.readyState === EventSource.CLOSED) {
      broken = "the process has ended, or too many pages are open";
      setTimeout(() => source && source.readyState === EventSource.CLOSED && open(), AGAIN_MS);
    }
    link();
  });
}

// A browser gives all pages of one host six connections: one that nobody sees gives its own back.
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (!document.hidden) {
    if (!source) open();
    return;
  }
  hiddenTimer = setTimeout(() => {
    if (source) source.close();
    source = null;
  }, HIDDEN_MS);
});

for (const input of document.querySelectorAll("input[name=range]")) input.addEventListener("change", () => history && charts());
find("settings-all").addEventListener("change", () => about && view.settings(about));
setInterval(link, 1000);
open();
