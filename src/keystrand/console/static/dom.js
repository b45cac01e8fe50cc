// Small makers of nodes.

import * as say from "./words.js";

export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.filter((child) => child != null));
  return node;
}

export const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };
export const rows = (pairs) => el("dl", { class: "rows" }, ...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

export const facts = (pairs) => el("dl", { class: "facts" }, ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));

export function table(caption, heads, lines) {
  const numeric = (i) => (heads[i].startsWith("#") ? { class: "number" } : {});
  const head = el("tr", {}, ...heads.map((text, i) => el("th", { scope: "col", ...numeric(i) }, text.replace("#", ""))));
  const body = lines.map((cells) => el("tr", {}, ...cells.map((cell, i) => (cell instanceof Element && cell.tagName === "TD" ? cell : el("td", numeric(i), cell)))));
  const made = el("table", {}, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, ...body));
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption }, made);
}
export const when = (seconds) => el("td", { class: "when" }, say.time(seconds));
