// The page: which example, which step, which cell; keys, contents, questions.

import { drawFiles } from "./code.js";
import { cellOf, data, keyOf, modelOf } from "./data.js";
import { drawBars, drawCurve, drawLegend, drawWrong } from "./figures.js";
import { touched } from "./grid.js";
import { buildPanel } from "./panel.js";
import { brief, button, el, equals, link, nodes, number, speech, sum, symbol } from "./text.js";

const PACE = 1000; // milliseconds from step to step
const wide = innerWidth > 800;
const byId = (id) => document.getElementById(id);
const view = { model: null, panels: [], steps: [], active: 0, symbols: false, timer: null, kept: null };
Object.assign(view, { files: null, reading: null }); // the code at the end, and the panel that opened it

const setting = ([name, value]) => `${name} ${Array.isArray(value) ? value.join(" × ") : value}`;

function drawHead({ page }) {
  const settings = Object.entries(page.settings ?? {}).map(setting).join(" · ");
  const choice = ["Numbers", "Symbols"].map((name, k) => {
    const made = button(() => {
      view.symbols = Boolean(k);
      rebuild();
      byId("page").querySelectorAll(".choice button")[k].focus();
    }, name);
    made.ariaPressed = String(view.symbols === Boolean(k));
    return made;
  });
  const jumps = page.panels.map(({ title }, p) => el("li", {}, button(() => jump(p, view.steps[p], "start"), title)));
  const panels = el("details", { className: "jumps", open: wide && jumps.length < 13 },
    el("summary", {}, `${jumps.length} panels`), el("ol", {}, jumps));
  return el("header", {},
    el("h1", {}, page.title),
    page.note ? el("p", { className: "note" }, page.note) : [],
    settings ? el("p", { className: "settings" }, settings) : [],
    jumps.length > 4 ? panels : [],
    el("div", { className: "choice", role: "group", ariaLabel: "Cells as" }, choice),
    drawLegend(page, view.symbols));
}

function rebuild() {
  const { model, symbols } = view;
  view.panels = model.panels.map((_, p) => buildPanel(model, p, symbols, { go, play, read }));
  view.files = drawFiles(model, () => {
    leave();
    location.hash = model.page.id;
  });
  byId("page").replaceChildren(drawHead(model),
    ...(model.page.curve ? [drawCurve(model)] : []),
    ...(model.page.bars ? [drawBars(model)] : []),
    ...view.panels.map((panel) => panel.element),
    ...(model.page.wrong ? [drawWrong(model)] : []),
    view.files.element);
  update();
}

function openPage(id) {
  const page = data.pages.find((each) => each.id === id) ?? data.pages[0];
  stop();
  const steps = page.panels.map(() => 0);
  Object.assign(view, { model: modelOf(page), steps, active: 0, symbols: page.symbols, kept: null, reading: null });
  document.title = page.title;
  rebuild();
  showCell(null);
  for (const each of byId("contents").querySelectorAll("a")) {
    if (each.hash === `#${page.id}`) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
}

function update() {
  const { model, active, steps, timer } = view;
  if (!model.panels.length) return;
  const panel = model.panels[active], step = panel.steps[steps[active]];
  const echo = new Set([...touched(model, step).keys(), keyOf(model.page, panel.result, step.cell)]);
  view.panels.forEach((each, p) => {
    const own = p === active;
    each.update(steps[p], own, own && timer !== null, own ? new Set() : echo);
  });
  const points = byId("page").querySelectorAll(".point");
  points.forEach((point, index) => point.classList.toggle("lit", index === step.cell));
}

function go(p, s) {
  const { steps } = view.model.panels[p];
  if (p !== view.active) stop();
  view.active = p;
  view.steps[p] = Math.min(Math.max(s, 0), steps.length - 1);
  update();
  const at = view.steps[p], panel = view.model.panels[p];
  byId("live").textContent = `${panel.title}. Step ${at + 1} of ${steps.length}. ${speech(view.model, panel, steps[at])}`;
}

function stop() {
  clearInterval(view.timer);
  view.timer = null;
}

function play(p) {
  const running = view.timer !== null && p === view.active;
  stop();
  if (running) return update();
  const last = view.model.panels[p].steps.length - 1;
  if (view.steps[p] === last) go(p, 0);
  view.timer = setInterval(() => {
    go(view.active, view.steps[view.active] + 1);
    if (view.steps[view.active] < last) return;
    stop();
    update();
  }, PACE);
  go(p, view.steps[p]);
}

function jump(p, s, block = "nearest") {
  go(p, s);
  view.panels[p].element.scrollIntoView({ block });
}

const entry = (p, s, ...content) => el("li", {}, button(() => jump(p, s), ...content));

/** The steps that make a cell. */
function listMade(model, key) {
  return (model.made.get(key) ?? []).map(({ p, s }) => {
    const panel = model.panels[p], step = panel.steps[s];
    const value = number(model.page.grids[panel.result].values[step.cell]);
    if (!step.terms.length) return entry(p, s, step.say || value);
    const { terms, more } = brief(step), rest = more ? ` + … (${more} more)` : "";
    const [letters, numbers] = ["symbols", "numbers"].map((kind) => nodes(sum(model, panel, { terms }, kind)));
    return entry(p, s, el("span", {}, letters, rest),
      el("span", {}, "= ", numbers, rest, ` ${equals(model, panel, step)} ${value}`));
  });
}

/** The products that a cell takes part in, panel by panel. */
function listUses(model, key) {
  const uses = Map.groupBy(model.used.get(key) ?? [], ({ p }) => p);
  return [...uses].flatMap(([p, entries]) => {
    const panel = model.panels[p], { symbols } = model.page.grids[panel.result];
    const products = entries.map(({ s, term }) => {
      const [letters, numbers] = ["symbols", "numbers"].map((kind) => nodes(sum(model, panel, { terms: [term] }, kind)));
      return entry(p, s, el("span", {}, letters, " in ", symbol(symbols[panel.steps[s].cell])), el("span", {}, numbers));
    });
    return [el("h4", {}, panel.title), el("ul", {}, products)];
  });
}

const HINT = "Point at a cell, or walk to it by tab and arrows: here stands every product that it is made of, and every " +
  "product that it takes part in. A click keeps it.";
const NONE = "No cell of the tensor: it was put there, as padding or in the gaps of a stride or dilation.";

/** The cell as its sum: what it is made of, and what it takes part in. Without a key, the words. */
function showCell(key, words = HINT) {
  const { model } = view, aside = byId("cell");
  for (const cell of byId("page").querySelectorAll(".open")) cell.classList.remove("open");
  aside.classList.toggle("empty", words === HINT && key === null);
  const shut = button(closeCell, "Close");
  shut.className = "shut";
  if (key === null) return aside.replaceChildren(shut, el("h2", {}, "A cell"), el("p", {}, words));
  for (const cell of byId("page").querySelectorAll(`[data-key="${key}"]`)) cell.classList.add("open");
  const [name, index] = cellOf(key);
  const grid = model.page.grids[name], made = listMade(model, key), uses = listUses(model, key);
  const own = el("span", { className: `factor ${grid.role}` }, symbol(grid.symbols[index]));
  aside.replaceChildren(shut,
    el("h2", {}, own, ` = ${number(grid.values[index])}`),
    el("p", {}, grid.title),
    el("h3", {}, "Made of"), made.length ? el("ul", {}, made) : el("p", {}, "It is given: no panel makes it."),
    el("h3", {}, "Takes part in"), ...(uses.length ? uses : [el("p", {}, "No product has it.")]));
}

function closeCell() {
  view.kept = null;
  showCell(null);
}

function watchCells() {
  const page = byId("page");
  const show = ({ dataset }) => (dataset.key ? showCell(dataset.key) : showCell(null, NONE));
  const choose = (cell) => {
    const p = view.panels.findIndex((panel) => panel.element.contains(cell));
    const panel = view.model.panels[p];
    if (cell.dataset.grid === panel?.result) go(p, panel.steps.findIndex((step) => step.cell === Number(cell.dataset.index)));
  };
  const on = (type, act) => page.addEventListener(type, (event) => {
    const cell = event.target.closest("td[data-grid]");
    if (cell) act(cell, event);
  });
  on("pointerover", (cell, event) => event.pointerType === "mouse" && show(cell));
  on("pointerout", () => view.kept?.isConnected && show(view.kept));
  on("focusin", (cell) => {
    view.kept = cell;
    show(cell);
  });
  on("click", choose);
  on("keydown", (cell, event) => event.key === "Enter" && choose(cell));
}

/** Arrows step, space plays, home and end go to the ends: wherever the key has no other meaning. */
function watchKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || !view.panels.length) return;
    const own = event.target.closest("input, pre, aside");
    if (event.key === "Escape") return closeCell();
    if (own || (event.key === " " && event.target.closest("button, a, summary"))) return;
    const { active, steps } = view;
    const to = { ArrowLeft: steps[active] - 1, ArrowRight: steps[active] + 1, Home: 0, End: Infinity }[event.key];
    if (event.key === " ") play(active);
    else if (to !== undefined) go(active, to);
    else return;
    event.preventDefault();
  });
}

function visit(id) {
  openPage(id);
  location.hash = id;
  scrollTo(0, 0);
}

/** Opens the file of a panel's code at its lines. */
function read(id) {
  stop();
  update();
  view.reading = id;
  view.files.show(view.model.panels.find((panel) => panel.id === id));
  location.hash = `${view.model.page.id}/${id}`;
}

/** Goes back to the panel whose code is read. */
function leave() {
  byId(`panel-${view.reading}`).querySelector(".code a").focus();
  view.reading = null;
}

/** The address, #page or #page/panel, where the code of that panel is read. */
function follow() {
  const [id, code] = location.hash.slice(1).split("/");
  if (!view.model || (id !== view.model.page.id && data.pages.some((page) => page.id === id))) openPage(id);
  const panel = view.model.panels.find((each) => each.id === code);
  if (panel && panel.id !== view.reading) read(panel.id);
  else if (!panel && view.reading) leave();
}

/** Sets a question's example up, and answers it there. */
function ask({ question, answer, page, panel, cell }) {
  if (view.model.page.id !== page) visit(page);
  const p = view.model.panels.findIndex((each) => each.id === panel);
  if (p >= 0) go(p, view.model.panels[p].steps.findIndex((step) => step.cell === cell));
  document.querySelector(".answer")?.remove();
  const box = el("div", { className: "answer", tabIndex: -1, role: "note" },
    el("h3", {}, question), answer.split("\n\n").map((paragraph) => el("p", {}, paragraph)));
  const place = byId(`panel-${panel}`) ?? byId("page").firstElementChild;
  place.firstElementChild.after(box);
  box.focus({ preventScroll: true });
  place.scrollIntoView({ block: "start" });
}

function drawSide() {
  const links = data.pages.map(({ id, title }) => el("li", {}, link(id, () => visit(id), title)));
  const asked = data.questions.map((each) => el("li", {}, button(() => ask(each), each.question)));
  for (const [id, title, entries, least] of [["contents", "Examples", links, 2], ["questions", "Questions", asked, 1]]) {
    byId(id).append(el("details", { open: wide }, el("summary", {}, title), el("ul", {}, entries)));
    byId(id).hidden = entries.length < least;
  }
}

function start() {
  drawSide();
  follow();
  watchCells();
  watchKeys();
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("page").focus();
  });
  addEventListener("hashchange", follow);
  addEventListener("beforeprint", () => document.querySelectorAll(".panel details").forEach((each) => (each.open = true)));
}

document.addEventListener("DOMContentLoaded", start);
