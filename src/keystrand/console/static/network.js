// The network of relays as this site knows it: a map, the ways of its own links, and what is not as it should be.

import { el, table } from "./dom.js";
import * as say from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, NAME_MAX, SITES_MAX] = [440, 340, 14, 32];
const SIGNS = { up: "●", away: "✕", maintenance: "○", barred: "⊘", closed: "○" };
const WORDS = { up: "up", away: "away", maintenance: "in maintenance", barred: "barred", closed: "closed to routes" };

function draw(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const short = (name) => (name.length > NAME_MAX ? `${name.slice(0, NAME_MAX - 1)}…` : name);

// Sites on an ellipse, in the order of the network's file: no coordinates are known, and lines tell enough.
function places(names) {
  return new Map(names.map((name, i) => {
    const angle = (2 * Math.PI * i) / names.length - Math.PI / 2;
    return [name, { x: WIDTH / 2 + 130 * Math.cos(angle), y: HEIGHT / 2 + 120 * Math.sin(angle), cos: Math.cos(angle), sin: Math.sin(angle) }];
  }));
}

export function map([sites, hops, own]) {
  if (sites.length > SITES_MAX) return [el("p", { class: "note" }, `A map shows at most ${SITES_MAX} sites; the table below has the hops.`)];
  const at = places(sites.map(([name]) => name));
  const lines = hops.map(([one, other, state, used]) => draw("line", {
    x1: at.get(one).x, y1: at.get(one).y, x2: at.get(other).x, y2: at.get(other).y, "data-state": state, "data-used": used ? "yes" : "no",
  }, draw("title", {}, `${one} – ${other}: ${WORDS[state]}`)));
  const nodes = sites.map(([name, state]) => {
    const { x, y, cos, sin } = at.get(name);
    const anchor = Math.abs(cos) < 0.3 ? "middle" : cos > 0 ? "start" : "end";
    return draw("g", { "data-state": state, "data-own": name === own ? "yes" : "no" },
      draw("title", {}, `${name}: ${WORDS[state]}`),
      draw("circle", { cx: x, cy: y, r: name === own ? 9 : 7 }),
      draw("text", { x: x + 15 * cos, y: y + 17 * sin + 4, "text-anchor": anchor }, state === "up" ? short(name) : `${SIGNS[state]} ${short(name)}`));
  });
  const label = `Map of ${sites.length} sites and ${hops.length} hops; the tables beside it say the same`;
  return [draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, ...lines, ...nodes),
    el("p", { class: "note" }, "Thick: on a way of this site. Dashed: away. Dotted: closed to routes.")];
}

const listed = (items) => el("ul", { class: "faults" }, ...items.map((text) => el("li", {}, text)));

// A hop of a site that is named itself is not named again.
export function faults({ places: sites, hops: all, hops_total: total }) {
  const named = new Set(sites.filter(({ state }) => state !== "up").map(({ site }) => site));
  const found = [
    ...sites.filter(({ state }) => state !== "up").map(({ site, state }) => `${SIGNS[state]} ${site} is ${WORDS[state]}`),
    ...all.filter(({ state, one, other }) => state !== "up" && !named.has(one) && !named.has(other)).map(({ one, other, state }) => `${SIGNS[state]} ${one} – ${other} is ${WORDS[state]}`),
    ...sites.filter(({ missing }) => missing.length).map(({ site, missing }) => `◇ ${site} is not documented: ${missing.join(", ")}`),
    ...sites.filter(({ due }) => due).map(({ site }) => `◇ documents of ${site} lapse within two weeks`),
  ];
  if (found.length) return [listed(found)];
  return [el("p", { class: "note" }, all.length < total ? `✓ All sites are there, and so are the ${say.count(all.length)} hops of ${say.count(total)} that are shown.` : "✓ All sites and hops are there, and documented.")];
}

const standing = ({ paths, routes, planned }) => (routes.length ? `${routes.length} of ${paths}` : `none of ${paths}${planned ? ", by planned maintenance" : ""}`);

export function ways({ ways: list, links }) {
  if (!list.length) return [el("p", { class: "empty" }, "No relayed link ends at this site; it relays for others.")];
  const free = new Map(links);
  const lines = list.map(({ link, ends, paths, routes, planned }) => [
    el("td", {}, el("strong", {}, link), ` ${ends.join(" to ")}`),
    el("td", {}, el("span", { class: "state", "data-up": routes.length ? "yes" : "no" }, standing({ paths, routes, planned }))),
    el("td", {}, ...(routes.length ? routes.map((route) => el("div", {}, route.join(" › "))) : ["–"])),
    free.has(link) ? say.bits(free.get(link)) : "–",
  ]);
  return [table("Ways of the links over relays that end here", ["Link", "Ways", "Over", "#Free at this end"], lines)];
}

export function hops({ hops: all, hops_total: total }) {
  const lines = all.map(({ one, other, state, bits, used }) => [
    `${one} – ${other}`, el("td", {}, el("span", { class: "state", "data-up": state === "up" ? "yes" : "no" }, WORDS[state])), used ? "yes" : "no", say.bits(bits),
  ]);
  const caption = all.length < total ? `${say.count(all.length)} of ${say.count(total)} hops: on ways of this site, then away` : "Hops, as their ends tell of them";
  return [el("details", {}, el("summary", {}, "All hops as a table"), table(caption, ["Hop", "State", "On a way of ours", "#Free at the poorer end"], lines))];
}

export function saw(list) {
  if (!list.length) return [el("p", { class: "note" }, "No share that this site relayed was in clear here since the start of this process.")];
  const lines = list.map(({ link, seen, bits: count }) => [link, seen === "whole" ? "blocks whole" : "parts, each of which says nothing", say.bits(count)]);
  return [table("What was in clear here as a relay, since the start of this process", ["Link", "Seen", "#Bits"], lines)];
}
