// The status page: one stream of snapshots in, the document brought up to date. No state of its own but the series.

import { Line, axisRate, percent, rate } from "./charts.js";
import { el, facts, rows, set, table, when } from "./dom.js";
import * as network from "./network.js";
import * as say from "./words.js";

const POINTS_MAX = 720;
const STALE_MS = 10_000;
const SILENT_S = 20; // as the alarm of a silent tunnel
const ACCOUNTS = ["available", "reserved", "delivered", "quarantined", "burnt", "expired"];
const SIGNS = { alert: "▲ Alert", warning: "◆ Warning", calm: "✓" };

const $ = (id) => document.getElementById(id);
const series = new Map();
const cards = new Map();
const shown = new Map();
let heard = 0;

// Replace the children of a place only where what they say has changed: focus, selection and open details survive.
function fill(id, data, build) {
  const said = JSON.stringify(data);
  if (shown.get(id) === said) return;
  shown.set(id, said);
  $(id).replaceChildren(...build(data));
}

function alarms(list) {
  if (!list.length) return [el("li", { "data-severity": "calm" }, el("span", { class: "sign" }, SIGNS.calm), "No alarms. Everything this site watches is within bounds.")];
  return list.map((alarm) => el("li", { "data-severity": alarm.severity },
    el("span", { class: "sign" }, SIGNS[alarm.severity]), `${alarm.about}: ${alarm.text} `,
    el("span", { class: "runbook" }, `${alarm.owner}: see ${alarm.runbook}`)));
}

class LinkCard {
  constructor(name) {
    this.name = name;
    this.state = el("span", { class: "state" });
    this.tag = el("span", { class: "tag" });
    this.title = el("h3");
    this.qber = el("p", { class: "value" });
    this.skr = el("p", { class: "value" });
    this.qberChart = el("div", { class: "chart", role: "img", "aria-label": `QBER of ${name} over time; the table below has the numbers` });
    this.skrChart = el("div", { class: "chart", role: "img", "aria-label": `Secret key rate of ${name} over time; the table below has the numbers` });
    this.numbers = el("div");
    this.details = el("details", {}, el("summary", {}, "The last blocks as a table"), this.numbers);
    this.details.addEventListener("toggle", () => this.listBlocks());
    this.poolTitle = el("span", { class: "label" });
    this.poolState = el("span", { class: "label" });
    this.bar = el("div", { class: "bar", "aria-hidden": "true" });
    this.parts = ACCOUNTS.map((account) => el("span", { "data-account": account }));
    this.bar.append(...this.parts);
    this.amounts = ACCOUNTS.map(() => el("dd"));
    this.node = this.build();
    this.qberLine = new Line(this.qberChart, { colour: "--accent", format: percent, floor: 0.02 });
    this.skrLine = new Line(this.skrChart, { colour: "--rate", format: axisRate, floor: 1 });
  }

  build() {
    const key = ACCOUNTS.map((account, i) => el("div", {}, el("dt", {}, el("span", { class: "swatch", "data-account": account }), account), this.amounts[i]));
    return el("article", { "aria-label": `Link ${this.name}` },
      el("div", { class: "title" }, this.title, this.state, this.tag),
      el("div", { class: "figures" },
        el("div", {}, el("p", { class: "label" }, "Quantum bit error rate (QBER)"), this.qber, this.qberChart),
        el("div", {}, el("p", { class: "label" }, "Secret key rate"), this.skr, this.skrChart)),
      this.details,
      el("div", { class: "pool" }, el("div", { class: "pool-head" }, this.poolTitle, this.poolState), this.bar, el("dl", { class: "key" }, ...key)));
  }

  show(link) {
    set(this.title, link.link);
    set(this.state, `${link.state}, shared with ${link.peer}`);
    this.state.dataset.up = link.state === "up" ? "yes" : "no";
    set(this.tag, link.simulated ? "photons simulated" : "hardware");
    set(this.qber, say.ratio(link.qber));
    this.showRate(link.skr_bps);
    this.showPool(link);
    const { blocks } = series.get(link.link) ?? { blocks: [] };
    this.qberLine.show(blocks.map((p) => p[0]), blocks.map((p) => p[1]));
    this.skrLine.show(blocks.map((p) => p[0]), blocks.map((p) => p[2]));
    this.listBlocks();
  }

  showRate(skr) {
    const said = skr == null ? "–" : say.bitParts(skr).join("|");
    if (this.skr.dataset.said === said) return;
    this.skr.dataset.said = said;
    const [figure, unit] = skr == null ? ["–", ""] : say.bitParts(skr);
    this.skr.replaceChildren(`${figure} `, el("small", {}, unit ? `${unit}/s` : ""));
  }

  showPool(link) {
    const total = Math.max(1, link.ledger.ingested);
    set(this.poolTitle, `Pool: ${say.bits(link.ledger.ingested)} ingested, ${say.bits(link.owned_free_bits)} free at this end`);
    const flow = `in ${rate(link.fill_bps)}, out ${rate(link.drain_bps)}`;
    set(this.poolState, link.time_to_empty_s == null ? `${flow}; not shrinking` : `${flow}; empty in ${say.span(link.time_to_empty_s)}`);
    ACCOUNTS.forEach((account, i) => {
      this.parts[i].style.width = `${(100 * link.ledger[account]) / total}%`;
      set(this.amounts[i], say.bits(link.ledger[account]));
    });
  }

  listBlocks() {
    if (!this.details.open) return;
    const { blocks } = series.get(this.name) ?? { blocks: [] };
    const lines = blocks.slice(-12).reverse().map(([at, qber, skr]) => [when(at), say.ratio(qber), skr == null ? "–" : rate(skr)]);
    const said = JSON.stringify(blocks.at(-1) ?? null);
    if (this.numbers.dataset.said === said) return;
    this.numbers.dataset.said = said;
    this.numbers.replaceChildren(table(`The last ${lines.length} values of ${this.name}, newest first`, ["Time", "#QBER", "#Secret key rate"], lines));
  }
}

function links(list) {
  for (const link of list) {
    if (!cards.has(link.link)) {
      if (!cards.size) $("links").replaceChildren();
      cards.set(link.link, new LinkCard(link.link));
      $("links").append(cards.get(link.link).node);
    }
    cards.get(link.link).show(link);
  }
}

function peers(list) {
  if (!list.length) return [el("p", { class: "empty" }, "No peer is configured.")];
  return list.map((peer) => el("div", { class: "peer" },
    el("div", { class: "title" }, el("h3", {}, peer.peer), el("span", { class: "state", "data-up": peer.up ? "yes" : "no" }, peer.up ? "up" : "down")),
    rows([[peer.up ? "Up since" : "Down since", say.moment(peer.since_s)], ["TLS key exchange", peer.group || "no connection"], ["ML-KEM strand", peer.strand_age_s == null ? "none yet" : `${say.span(peer.strand_age_s)} old`], ["Epoch", say.count(peer.epoch)]])));
}

function audit({ audit: log, ago, expiry, waivers }) {
  if (!log) return [el("p", { class: "empty" }, "No figures yet.")];
  return [rows([
    ["Records", say.count(log.size)],
    ["Last signed checkpoint", log.last_checkpoint_size ? `over ${say.count(log.last_checkpoint_size)} records` : "none yet"],
    ["Co-signed by a peer", ago == null ? "not yet" : `${say.count(log.cosigned_size)} records, ${say.span(ago)} ago`],
    ["Certificate expires in", say.span(expiry)],
    ["Waivers active", say.count(waivers)],
  ])];
}

function keys({ total, pairs, recent }) {
  if (!total) return [el("p", { class: "empty" }, "None since the start of this process.")];
  const lines = pairs.map((pair) => [`${pair.initiator} to ${pair.responder}`, say.protection[pair.protection] ?? pair.protection, say.count(pair.keys)]);
  const latest = recent.slice(0, 8).map((key) => [when(key.at_s), el("code", {}, say.short(key.key_id)), key.recipient ?? "–", say.bits(key.size_bits ?? 0), say.protection[key.protection] ?? "–"]);
  return [
    table(`${say.count(total)} since the start of this process`, ["SAE pair", "Protection", "#Keys"], lines),
    el("details", {}, el("summary", {}, "The last deliveries"), table("The last deliveries, newest first", ["Time", "Key ID", "To", "#Size", "Protection"], latest)),
  ];
}

function transfers(list) {
  return list.slice(0, 3).map((item) => {
    const [done, total] = [item.bytes_done ?? 0, item.bytes_total ?? 0];
    const part = total ? Math.min(100, (100 * done) / total) : item.state === "finished" ? 100 : 0;
    const bar = el("div", { class: "track", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.floor(part)), "aria-label": `Transfer ${say.short(item.transfer_id)}` });
    const filled = el("div", { class: "fill", "data-state": item.state });
    filled.style.width = `${part}%`;
    bar.append(filled, ...item.rotated.filter((turn) => total && turn.bytes_done).map((turn) => tick(turn.bytes_done / total)));
    const turns = item.rotations ?? item.rotated.length;
    return el("article", {},
      el("div", { class: "title" }, el("h3", {}, item.direction === "receiving" ? `From ${item.peer ?? "peer"}` : `To ${item.peer ?? "peer"}`),
        el("span", { class: "state" }, `${item.state}, ${Math.floor(part)} %`), el("code", { class: "state" }, say.short(item.transfer_id))),
      bar,
      facts([
        ["Moved", total ? `${say.bytes(done)} of ${say.bytes(total)}` : say.bytes(done)],
        ["Throughput", item.throughput_bytes_per_s == null ? "–" : `${say.bytes(item.throughput_bytes_per_s)}/s`],
        ["Key rotations", say.count(turns)],
        ["Protection of the keys", say.protection[item.protection] ?? item.protection ?? "–"],
      ]),
      rotations(item));
  });
}

function tunnels({ list, now }) {
  const lines = list.map((tunnel) => {
    const silent = now - tunnel.at_s > SILENT_S;
    const state = el("td", {}, el("span", { class: "state", "data-up": !silent && tunnel.state === "up" ? "yes" : "no" }, silent ? "silent" : tunnel.state));
    return [
      el("td", {}, el("strong", {}, tunnel.tunnel), ` ${tunnel.kind}, with ${tunnel.peer_sae}`),
      state,
      say.protection[tunnel.protection || "none"] ?? tunnel.protection,
      say.span(tunnel.key_age_s ?? 0),
      say.span(tunnel.next_rotation_s ?? 0),
      say.span(tunnel.exposure_s ?? 0),
      tunnel.bytes_under_key ? say.bytes(tunnel.bytes_under_key) : "–",
      tunnel.reason || "–",
    ];
  });
  const heads = ["Tunnel", "State", "Protection", "#Key age", "#Next key in", "#Oldest key in use", "#Under this key", "Last failure"];
  return [table(`${say.count(list.length)} at this site, as their connectors report them`, heads, lines)];
}

function rotations(item) {
  if (!item.rotated.length) return null;
  const lines = item.rotated.slice(-16).reverse().map((turn) => [when(turn.at_s), el("code", {}, say.short(turn.key_id)), turn.bytes_done == null ? "–" : say.bytes(turn.bytes_done)]);
  return el("details", {}, el("summary", {}, "The last key rotations"), table(`Keys of transfer ${say.short(item.transfer_id)}, newest first`, ["Time", "Key ID", "#At"], lines));
}

function tick(part) {
  const node = el("span", { class: "tick" });
  node.style.left = `${100 * part}%`;
  return node;
}

const severity = (word) => (SIGNS[word] ? el("span", { class: "word", "data-severity": word }, `${SIGNS[word]}: `) : null);

function events(list) {
  if (!list.length) return [el("p", { class: "empty" }, "Nothing yet.")];
  const lines = list.slice(0, 25).map((event) => [when(event.at_s), el("td", {}, severity(event.severity), say.saying(event))]);
  return [table("Events, newest first", ["Time", "What happened"], lines)];
}

function networks({ network: known, links: list, saw }) {
  $("network-part").hidden = !known;
  if (!known) return;
  set($("network-title"), `Network ${known.network}: ${say.count(known.places.length)} sites, ${say.count(known.hops_total)} hops`);
  fill("network-map", [known.places.map(({ site, state }) => [site, state]), known.hops.map(({ one, other, state, used }) => [one, other, state, used]), $("site").textContent], network.map);
  fill("network-faults", known, network.faults);
  fill("network-ways", { ways: known.ways, links: list.map(({ link, owned_free_bits }) => [link, owned_free_bits]) }, network.ways);
  keepOpen("network-hops", () => fill("network-hops", known, network.hops));
  fill("network-saw", saw, network.saw);
}

function absorb(snapshot) {
  if (snapshot.full) series.clear();
  for (const [link, news] of Object.entries(snapshot.series)) {
    const kept = series.get(link) ?? { blocks: [] };
    kept.blocks = [...kept.blocks, ...news.blocks].slice(-POINTS_MAX);
    series.set(link, kept);
  }
}

function show(snapshot) {
  absorb(snapshot);
  fill("alarm-list", snapshot.alarms, alarms);
  links(snapshot.links);
  networks(snapshot);
  fill("peers", snapshot.peers, peers);
  const cosigned = snapshot.audit?.cosigned_at_s;
  fill("audit", { audit: snapshot.audit, ago: cosigned == null ? null : Math.floor(snapshot.at_s - cosigned), expiry: snapshot.cert_expiry_s, waivers: snapshot.waivers_active }, audit);
  keepOpen("keys", () => fill("keys", snapshot.deliveries, keys));
  $("transfers-part").hidden = !snapshot.transfers.length;
  keepOpen("transfers", () => fill("transfers", snapshot.transfers, transfers));
  $("tunnels-part").hidden = !snapshot.tunnels.length;
  fill("tunnels", { list: snapshot.tunnels, now: Math.floor(snapshot.at_s / 5) * 5 }, tunnels);
  fill("events", snapshot.events, events);
  pulse("live", `live, ${say.time(snapshot.at_s)}`);
}

// Details stay open, and keep the keyboard's focus, over an update of their surroundings.
function keepOpen(id, update) {
  const before = [...$(id).querySelectorAll("details")].map((node) => ({ node, open: node.open, focused: node.contains(document.activeElement) }));
  update();
  [...$(id).querySelectorAll("details")].forEach((node, i) => {
    if (!before[i] || before[i].node === node) return;
    node.open = before[i].open;
    if (before[i].focused) node.querySelector("summary").focus({ preventScroll: true });
  });
}

function pulse(state, text) {
  $("pulse").dataset.state = state;
  set($("pulse"), text);
}

const stream = new EventSource("/api/v1/events");
stream.onmessage = (message) => { heard = Date.now(); show(JSON.parse(message.data)); };
stream.onerror = () => pulse("lost", heard ? `no connection, figures of ${say.time(heard / 1000)}` : "no connection");
setInterval(() => { if (heard && Date.now() - heard > STALE_MS) pulse("lost", `no news since ${say.time(heard / 1000)}`); }, 2000);
