// What the page shows of one observation.

import { draw, find, keep, make, rows, show, text } from "./dom.js";
import { duration, number, plural, rate, size, time } from "./format.js";

const TRIGGERS = {
  rows: "rows", bytes: "bytes", age: "age", memory: "full memory", end: "the end", stop: "a stop",
  range: "a range announced before", saturated: "a queue that waits", asked: "somebody who asked",
};

export function glance(now) {
  const [worst, ...others] = now.judgements;
  find("glance").dataset.level = worst.level;
  text("glance-title", worst.title);
  text("glance-why", together(worst.why));
  keep(find("glance-more"), others, (one) => one.title, () => make("li", {}, make("strong"), make("span")), (item, one) => {
    text(item.children[0], one.title);
    text(item.children[1], one.why ? `: ${together(one.why)}` : "");
  });
  const waits = now.waiting_for && now.state === "running" && !now.off_switch && worst.title !== "Not writing" && worst.title !== "Standing by";
  text("waiting", waits ? `Not flushing now: waits for ${now.waiting_for}.` : now.in_flight ? writing(now.in_flight) : "");
  // Only alarms are read out, and only when they are new.
  const alarms = now.judgements.filter((one) => one.level === "alarm").map((one) => one.title);
  text("alarms", alarms.length ? `Alarm: ${alarms.join(", ")}` : "");
  document.title = `${worst.level === "ok" ? "" : `${worst.title} · `}${now.group || "batcher"} · batcher`;
}

// A number and its unit stay on one line.
const together = (words) => words.replace(/(\d) (s|min|h|days|records?|times|MiB|KiB|GiB)\b/g, "$1\u00a0$2");

const writing = (batch) => `Batch ${batch.number} of ${plural(batch.rows, "record")} is with the target, cut by ${TRIGGERS[batch.trigger] || batch.trigger}${batch.attempts > 1 ? `, attempt ${batch.attempts}` : ""}.`;

export function header(now) {
  text("route", [now.group, now.target].filter(Boolean).join(" → "));
  const facts = {
    State: now.state,
    Guarantee: now.delivery,
    "Last commit": now.last_commit_age_s == null ? "none yet" : `${duration(now.last_commit_age_s)} ago`,
    Up: duration(now.uptime_s),
  };
  keep(find("facts"), Object.entries(facts).flatMap(([name, value]) => [["dt", name, name], ["dd", name, value]]), ([tag, name]) => tag + name, ([tag]) => make(tag), (item, [, , value]) => text(item, value));
  find("facts").title = now.delivery_reason || "";
}

export function tiles(now) {
  const { trend, counts, buffer } = now;
  big("tile-written", rate(trend.written), "rows/s");
  const less = [["dead letter", counts.dead_lettered], ["skipped", counts.skipped], ["duplicate suppressed", counts.duplicates_suppressed]];
  text("tile-written-more", [`${number(counts.written)} since the start`, counts.dead_lettered ? plural(less[0][1], "dead letter") : "", counts.skipped ? `${number(less[1][1])} skipped` : ""].filter(Boolean).join(" · "));
  big("tile-lag", number(now.lag), now.lag === 1 ? "record" : "records");
  text("tile-lag-more", now.lag == null ? "not known yet" : now.lag === 0 ? "up to date" : [trend.eta_s != null ? `catching up: about ${duration(trend.eta_s)} to go` : trend.behind_s != null ? `${duration(trend.behind_s)} of writing` : "", trend.lag_growth > 1000 ? `${number(trend.lag_growth)} more than a minute ago` : ""].filter(Boolean).join(" · "));
  big("tile-fresh", trend.p50_s == null ? "–" : duration(trend.p50_s), "p50");
  const since = now.batches.length ? now.at - now.batches[0].at : null;
  text("tile-fresh-more", since == null ? "no batch yet" : trend.p99_s == null || since > 5 ? `no batch for ${duration(since)}` : `${duration(trend.p99_s)} p99, in the last minute`);
  big("tile-buffer", size(buffer.bytes), buffer.limit_bytes ? `of ${size(buffer.limit_bytes)}` : "");
  text("tile-buffer-more", [buffer.rows ? `${plural(buffer.rows, "record")}, the oldest ${duration(buffer.age_s)}` : "nothing waits", now.rss_bytes ? `process ${size(now.rss_bytes)}` : ""].filter(Boolean).join(" · "));
  const share = buffer.limit_bytes ? Math.min(buffer.bytes / buffer.limit_bytes, 1) : 0;
  find("tile-bar").querySelector(".fill").setAttribute("width", (share * 100).toFixed(1));
}

function big(id, value, unit) {
  const element = find(id);
  if (!element.firstElementChild) element.replaceChildren(document.createTextNode(""), make("small"));
  element.firstChild.data = `${value} `;
  text(element.firstElementChild, unit);
}

export function workers(now) {
  show("workers", Boolean(now.workers));
  if (!now.workers) return;
  rows("workers-rows", now.workers, (one) => one.number, [
    { class: "number", text: (one) => one.number },
    { text: workerState, tone: (one) => (!one.running && !one.idle ? "alarm" : one.last_error && !one.last_error.recovered ? "warning" : "") },
    { class: "number", text: (one) => number(one.written) },
    { class: "number", text: (one) => number(one.lag) },
    { class: "number wide", text: (one) => number(one.partition_count) },
    { class: "number wide", text: (one) => size(one.buffer_bytes) },
    { class: "number wide", text: (one) => size(one.rss_bytes) },
    { class: "number wide", text: (one) => number(one.starts) },
  ]);
}

function workerState(one) {
  if (!one.running) return one.idle ? "not needed now" : one.due_in_s == null ? "away" : `starts again in ${duration(one.due_in_s)}`;
  if (!one.state) return "starts";
  if (one.last_error && !one.last_error.recovered) return `the target: ${one.last_error.message}`;
  return one.waiting_for ? `waits for ${one.waiting_for}` : one.state;
}

export function targets(now) {
  const found = Object.entries(now.targets);
  show("targets", found.length > 0);
  rows("targets-rows", found, ([name]) => name, [
    { text: ([name]) => name },
    { text: ([, one]) => one.failed || (one.last_error && !one.last_error.recovered ? one.last_error.message : one.waiting_for ? `waits for ${one.waiting_for}` : "is being written"), tone: ([, one]) => (one.failed ? "alarm" : one.last_error && !one.last_error.recovered ? "warning" : "") },
    { class: "number", text: ([, one]) => number(one.written) },
    { class: "number", text: ([, one]) => number(one.dead_lettered) },
    { class: "number wide", text: ([, one]) => number(one.retries) },
  ]);
}

export function partitions(now) {
  const hidden = now.partition_count - now.partitions.length;
  text("partitions-note", hidden > 0 ? `the ${number(now.partitions.length)} furthest behind of ${number(now.partition_count)}` : now.partition_count ? number(now.partition_count) : "");
  show("partitions-empty", !now.partition_count);
  rows("partitions-rows", now.partitions, (one) => `${one.topic}/${one.partition}`, [
    { text: (one) => `${one.topic}[${one.partition}]${one.worker == null ? "" : ` · worker ${one.worker}`}` },
    { text: (one) => one.doing, tone: (one) => (one.stopped ? "alarm" : one.doing.startsWith("not") || one.doing.startsWith("waits") ? "warning" : "quiet") },
    { class: "number", text: (one) => number(one.lag) },
    { class: "number", text: (one) => rate(one.rate) },
    { class: "number wide", text: (one) => number(one.committed_offset) },
    { class: "number wide", text: (one) => number(one.next_offset) },
  ]);
}

export function batches(now) {
  const shown = now.batches.slice(0, 12);
  show("batches-empty", !shown.length);
  const longest = Math.max(...shown.map(took), 0.001);
  rows("batches-rows", shown, (one) => `${one.worker ?? ""}/${one.target}/${one.number}/${one.at}`, [
    { text: (one) => time(one.at) },
    { text: (one) => `${TRIGGERS[one.trigger] || one.trigger}${one.replayed ? ", replayed" : ""}` },
    { class: "number", text: (one) => number(one.rows) },
    { class: "number wide", text: (one) => size(one.bytes) },
    { class: "number wide", text: (one) => number(one.dead_lettered), tone: (one) => (one.dead_lettered ? "warning" : "quiet") },
    { fill: (cell, one) => stages(cell, one, longest) },
    { class: "wide quiet", text: (one) => `${one.target ? `${one.target}: ` : ""}${one.range}` },
  ]);
}

const took = (one) => one.decode_s + one.transform_s + one.write_s;

function stages(cell, one, longest) {
  const words = `${duration(took(one))}`;
  if (!cell.firstChild) cell.append(make("span"), draw("svg", { class: "stages", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img" }));
  text(cell.firstChild, words);
  const svg = cell.lastChild;
  svg.setAttribute("aria-label", `decode ${duration(one.decode_s)}, transform ${duration(one.transform_s)}, write ${duration(one.write_s)}`);
  cell.title = svg.getAttribute("aria-label");
  let x = 0;
  svg.replaceChildren(...["decode", "transform", "write"].map((stage) => {
    const width = (one[`${stage}_s`] / longest) * 100;
    const part = draw("rect", { class: stage, x: x.toFixed(2), width: width.toFixed(2), height: 6 });
    x += width;
    return part;
  }));
}

export function troubles(now) {
  show("troubles-empty", !now.troubles.length);
  text("troubles-note", [now.counts.retries ? plural(now.counts.retries, "retry", "retries") : "", now.counts.rebalances ? plural(now.counts.rebalances, "rebalance") : ""].filter(Boolean).join(" · "));
  const going = now.last_error && !now.last_error.recovered ? now.last_error.message : null;
  keep(find("troubles-rows"), now.troubles.slice(0, 8), (one) => `${one.worker ?? ""}/${one.since}/${one.kind}`, () => make("li", {}, make("div"), make("div", { class: "when" })), (item, one) => {
    text(item.children[0], one.message);
    item.children[0].className = one.message === going ? "alarm" : "";
    text(item.children[1], `${one.times > 1 ? `${number(one.times)} times, ` : ""}${time(one.since)}${one.at - one.since >= 1 ? ` to ${time(one.at)}` : ""} · ${one.kind}${one.target ? ` · ${one.target}` : ""}${one.worker == null ? "" : ` · worker ${one.worker}`}`);
  });
}

export function letters(now, about) {
  const reasons = Object.entries(now.dead_letter_reasons);
  show("letters-empty", !reasons.length);
  text("letters-note", now.counts.dead_lettered ? `${number(now.counts.dead_lettered)}${about.dead_letters ? ` in ${about.dead_letters}` : ""}` : "");
  counts("reasons-rows", reasons);
  show("letters-look", now.letters.length > 0);
  keep(find("letters-rows"), now.letters.slice(0, 12), (one) => `${one.topic}/${one.partition}/${one.offset}`, (one) => letter(one, about), () => {});
}

function letter(one, about) {
  const place = `${one.topic}[${one.partition}] offset ${one.offset}`;
  const body = make("div");
  body.append(make("p", {}, one.message), make("p", { class: "when" }, `${place} · ${one.stage} · ${time(one.at)}`));
  if (about.payloads) {
    body.append(make("pre", { tabindex: "0", "aria-label": `value of ${place}` }, one.value ?? "no value"));
    if (one.key != null) body.append(make("p", { class: "when" }, `key: ${one.key}`));
  } else body.append(make("p", { class: "when" }, "The value is shown with --http.payloads."));
  return make("details", {}, make("summary", {}, make("strong", {}, one.reason), ` ${one.path ? `in ${one.path}` : ""} · ${place}`), body);
}

export function lost(now) {
  const unknown = Object.entries(now.unknown_fields);
  show("unknown-empty", !unknown.length);
  text("lost-note", now.unknown_fields_estimated ? "counts are estimates" : "");
  counts("unknown-rows", unknown);
  show("missing-empty", !now.columns_without_value.length);
  counts("missing-rows", now.columns_without_value.map((name) => [name, null]));
}

function counts(id, entries) {
  keep(find(id), entries, ([name]) => name, () => make("li", {}, make("span", { class: "mono" }), make("span")), (item, [name, count]) => {
    text(item.children[0], name);
    text(item.children[1], count == null ? "" : number(count));
  });
}

export function settings(about) {
  const all = find("settings-all").checked;
  rows("settings-rows", about.settings.filter((one) => all || one.changed), (one) => one.key, [
    { class: "mono", text: (one) => one.key },
    { class: "mono", text: (one) => one.value || "not set" },
  ]);
  const versions = Object.entries(about.versions).map(([name, version]) => `${name} ${version}`);
  versions.push(about.native.length ? `native extension: ${about.native.join(", ")}` : "no native extension: Python does everything");
  keep(find("versions"), versions, (one) => one, () => make("span"), (item, one) => text(item, one));
}
