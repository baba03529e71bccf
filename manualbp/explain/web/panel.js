// A panel: its grids, its step written out, its controls, its formula, its source and its code.

import { drawLines } from "./code.js";
import { drawGrid, markPanel } from "./grid.js";
import { brief, button, el, equals, line, nodes, number, speech, sum, symbol } from "./text.js";

const narrow = matchMedia("(max-width: 500px)");

/** MathML comes from Python, which escapes the names in it. */
function math(mathml, text) {
  const holder = el("div", { className: "formula" });
  if (narrow.matches) holder.tabIndex = 0; // it scrolls
  if (mathml) holder.innerHTML = mathml;
  else holder.textContent = text;
  return holder;
}

function written(model, panel, step) {
  const grid = model.page.grids[panel.result];
  const result = el("b", { className: `factor ${grid.role}` }, number(grid.values[step.cell]));
  const name = el("span", { className: `factor ${grid.role}` }, symbol(grid.symbols[step.cell]));
  const lines = step.terms.length
    ? [el("p", { className: "symbols" }, name, " = ", nodes(sum(model, panel, step, "symbols"))),
       el("p", { className: "numbers" }, "= ", nodes(sum(model, panel, step, "numbers")),
         ` ${equals(model, panel, step)} `, result)]
    : [el("p", { className: "numbers" }, name, " = ", result)];
  if (brief(step).more) {
    for (const long of lines) Object.assign(long, { className: `${long.className} long`, tabIndex: 0 });
    lines.push(el("p", {}, name.cloneNode(true), ` ${equals(model, panel, step)} `, result.cloneNode(true)));
  }
  const say = step.say || (panel.linear && !step.terms.length && "No product goes there.");
  if (say) lines.push(el("p", { className: "say" }, say));
  return lines;
}

/** `go(panel, step)` moves the page; `play(panel)` starts and stops it; `read(id)` opens the code of a panel. */
export function buildPanel(model, p, symbols, { go, play, read }) {
  const panel = model.panels[p];
  const last = panel.steps.length - 1;
  const grids = panel.shows.map((name) => drawGrid(model, name, symbols));
  const [first, ...rest] = grids;
  for (const grid of grids) grid.figure.classList.toggle("moving", grid.name === panel.moving);

  let at = -1;
  const back = button(() => go(p, at - 1), "‹ Back");
  const forth = button(() => go(p, at + 1), "Step ›");
  const playing = button(() => play(p), "Play");
  const slider = el("input", { type: "range", min: 0, max: last, value: 0, ariaLabel: `Step of: ${panel.title}` });
  const count = el("output", {});
  slider.addEventListener("input", () => go(p, Number(slider.value)));

  const formulas = el("div", { className: "formulas" });
  const sums = el("div", { className: "sum" });
  const all = el("ol", { tabIndex: 0 }, panel.steps.map((step) => el("li", {}, line(model, panel, step))));
  const heading = el("h2", { id: `title-${panel.id}` }, panel.title);
  const element = el("section", { className: "panel", id: `panel-${panel.id}`, "aria-labelledby": heading.id },
    el("div", { className: "head" }, heading, panel.source ? el("p", { className: "source" }, panel.source) : []),
    formulas,
    el("div", { className: "grids" }, first.figure, el("div", { className: "rest" }, rest.map((grid) => grid.figure))),
    el("div", { className: "controls" }, back, forth, playing, slider, count),
    sums,
    el("details", { className: "all" }, el("summary", {}, "All steps, written out"), all),
    drawLines(model.page, panel, read));

  /** Shows a step; `echo` holds the keys that the step in hand touches. */
  function update(step, active, running, echo) {
    const cell = panel.steps[step];
    if (step !== at) {
      at = step;
      formulas.replaceChildren(math(panel.formula.mathml, panel.formula.text), cell.formula ? math(cell.formula) : "");
      sums.replaceChildren(...written(model, panel, cell));
    }
    element.classList.toggle("active", active);
    markPanel(model, panel, cell, grids, echo, symbols);
    slider.value = step;
    slider.ariaValueText = speech(model, panel, cell);
    count.textContent = `${step + 1} / ${last + 1}`;
    // disabled would drop the focus of who steps by keyboard
    back.ariaDisabled = String(step === 0);
    forth.ariaDisabled = String(step === last);
    playing.textContent = running ? "Pause" : "Play";
  }
  return { element, update };
}
