// The lists beside the values: devices, uploads, gaps, the store, and what has to be known at once.

import { clock, size, span, stateKind } from "/static/words.js";

export function element(name, options = {}, ...children) {
  const made = Object.assign(document.createElement(name), options);
  made.append(...children);
  return made;
}

function part(name, health, lines) {
  const state = element("span", { className: `state ${stateKind(health.state)}`, textContent: health.state });
  const item = element("li", {}, state, element("span", { className: "name", textContent: name }));
  for (const [text, kind] of lines) if (text) item.append(element("small", { textContent: text, className: kind ?? "" }));
  return item;
}

function insecure(sentence, detail) {
  return sentence && !detail.includes(sentence) ? `insecure: ${sentence.replace(/^insecure: /, "")}` : "";
}

function fill(list, items, nothing) {
  renew(list, items.length ? items : [element("li", { className: "muted", textContent: nothing })]);
}

// Only what changed is put anew: a selection stays, and a screen reader says a warning once.
function renew(list, items) {
  items.forEach((item, n) => {
    const old = list.children[n];
    if (!old) list.append(item);
    else if (!old.isEqualNode(item)) old.replaceWith(item);
  });
  while (list.children.length > items.length) list.lastElementChild.remove();
}

export function devices(list, found) {
  fill(list, found.map((device) => part(device.id, device, [
    [[device.kind, device.url].filter(Boolean).join(" · ")],
    [device.detail, stateKind(device.state) === "bad" ? "error" : "warn"],
    [insecure(device.insecure, device.detail), "warn"],
  ])), "No device is configured. Name one in gateway.yaml.");
}

export function uploads(list, found) {
  fill(list, found.map((upload) => {
    const { lag_s: lag = 0, backlog = {}, counters = {}, last_error: error } = upload.status;
    const waiting = backlog.samples ?? 0;
    return part(upload.id, upload.health, [
      [[upload.kind, upload.url].filter(Boolean).join(" · ")],
      [waiting ? `${waiting.toLocaleString()} samples wait (${size(backlog.bytes ?? 0)}), oldest ${span(lag)}` : "nothing waits"],
      [counters.samples ? `${counters.samples.toLocaleString()} samples delivered since the start` : ""],
      [counters.refused ? `${counters.refused.toLocaleString()} refused for good: see the quarantine` : "", "warn"],
      [upload.health.state === "running" ? "" : error, "error"],
      [insecure(upload.insecure, ""), "warn"],
    ]);
  }), "No upload is configured: samples stay here.");
}

export function gaps(list, found) {
  fill(list, found.map((gap) => element("li", {},
    element("span", { className: "name", textContent: gap.device ?? gap.upload ?? "gateway" }),
    element("small", { textContent: `${clock(gap.from_us)} – ${clock(gap.to_us)} (${span((gap.to_us - gap.from_us) / 1e6)})${gap.count ? `, ${gap.count.toLocaleString()} samples` : ""}` }),
    element("small", { textContent: gap.reason }))), "No gap is known.");
}

export function store(list, state) {
  const { store: found } = state;
  const rows = [
    ["Used", `${size(found.bytes_used)} of ${size(found.bytes_budget)}`],
    ["Waiting for commit", `${found.pending_samples.toLocaleString()} samples`],
    ...Object.entries(found.counters).map(([name, count]) => [name.replaceAll("_", " "), count.toLocaleString()]),
    ["Running for", span(state.uptime_s)],
    ["Clock", state.clock_synchronised ? "synchronised" : "not synchronised"],
  ];
  renew(list, rows.flatMap(([name, text]) => [element("dt", { textContent: name }), element("dd", { textContent: text })]));
}

export function notices(section, state) {
  const found = [
    ...state.config.problems.map((text) => ["bad", "Configuration", `${text}. Until it is mended, what was valid runs.`]),
    ...(state.store.refusing ? [["bad", "Store", state.store.refusing]] : []),
    ...state.insecure.map((text) => ["", "Insecure", text]),
    ...state.config.warnings.map((text) => ["", "Configuration", text]),
  ];
  renew(section, found.map(([kind, word, text]) =>
    element("p", { className: `notice ${kind}` }, element("strong", { textContent: `${word}:` }), text)));
}
