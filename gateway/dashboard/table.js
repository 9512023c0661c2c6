// The table of live values: rows are made once, cells change in place.

import { element } from "/static/parts.js";
import { clock, status, value } from "/static/words.js";

const MOST_ROWS = 400;
const REFRESH_MS = 150;  // faster nobody reads

export class Table {
  constructor(body, more, filter, choose) {
    this.body = body; this.more = more; this.filter = filter; this.choose = choose;
    this.tags = new Map(); this.rows = new Map(); this.dirty = new Set(); this.chosen = "";
    filter.addEventListener("input", () => this.rebuild());
    body.addEventListener("click", (event) => this.pick(event.target.closest("tr")));
    body.addEventListener("keydown", (event) => { if (event.key === "Enter") this.pick(event.target.closest("tr")); });
  }

  state(devices) {
    this.tags.clear();
    for (const device of devices) for (const row of device.tags) {
      this.tags.set(key(device.id, row.tag), { ...row, device: device.id });
    }
    this.rebuild();
  }

  // Returns false where a tag is new: the table has to be built again.
  samples(device, rows) {
    let known = true;
    for (const row of rows) {
      const at = key(device, row.tag), tag = this.tags.get(at);
      if (!tag) { this.tags.set(at, { ...row, unit: "", device }); known = false; continue; }
      if (tag.ts !== undefined && row.ts < tag.ts) continue;
      tag.ts = row.ts; tag.value = row.value; tag.status = row.status;
      this.dirty.add(at);
    }
    if (known) this.refresh(); else this.rebuild();
  }

  rebuild() {
    const wanted = this.filter.value.toLowerCase();
    const found = [...this.tags].filter(([, tag]) => `${tag.device} ${tag.tag}`.toLowerCase().includes(wanted));
    this.rows.clear(); this.dirty.clear();
    this.body.replaceChildren(...found.slice(0, MOST_ROWS).map(([at, tag]) => this.row(at, tag)));
    const hidden = found.length - Math.min(found.length, MOST_ROWS);
    this.more.textContent = hidden ? `… and ${hidden} more: narrow them down with the filter.`
      : found.length ? "" : this.tags.size ? "No tag matches the filter." : "No values yet.";
  }

  row(at, tag) {
    const cells = ["", "", "number", "", "", "time"].map((className) => element("td", { className }));
    cells[0].textContent = tag.device; cells[1].textContent = tag.tag; cells[3].textContent = tag.unit ?? "";
    const row = element("tr", { tabIndex: 0, className: at === this.chosen ? "chosen" : "" }, ...cells);
    row.dataset.at = at;
    this.rows.set(at, cells);
    this.write(cells, tag);
    return row;
  }

  write(cells, tag) {
    cells[2].textContent = value(tag);
    if (tag.ts === undefined) return;
    const { kind, text } = status(tag.status);
    cells[2].className = kind === "good" ? "number" : `number ${kind}`;  // a phone has no status column
    cells[4].textContent = text; cells[4].className = kind;
    cells[5].textContent = clock(tag.ts);
  }

  refresh() {
    if (this.waiting) return;
    this.waiting = true;
    setTimeout(() => requestAnimationFrame(() => this.update()), REFRESH_MS);
  }

  update() {
    this.waiting = false;
    const changed = [];
    for (const at of this.dirty) {
      const cells = this.rows.get(at);
      if (!cells) continue;
      const before = cells[2].textContent;
      this.write(cells, this.tags.get(at));
      if (before !== cells[2].textContent) changed.push(cells[2]);
    }
    this.dirty.clear();
    for (const cell of changed) cell.classList.remove("fresh");
    void this.body.offsetWidth;  // one layout for all, so that each animation starts anew
    for (const cell of changed) cell.classList.add("fresh");
  }

  pick(row) {
    if (!row) return;
    this.chosen = row.dataset.at;
    for (const other of this.body.children) other.classList.toggle("chosen", other === row);
    this.choose(this.tags.get(this.chosen));
  }

  // Choose what is worth a plot first: a number that is not constant zero, else any.
  pickFirst() {
    const tags = [...this.tags];
    const [at] = tags.find(([, tag]) => typeof tag.value === "number") ?? tags[0] ?? [];
    const row = [...this.body.children].find((item) => item.dataset.at === at);
    this.pick(row);
  }
}

function key(device, tag) { return JSON.stringify([device, tag]); }
