// Numbers, symbols and sums as text, for the eye and for the ear.

import { keyOf } from "./data.js";

const MOST = 150, FEW = 4; // terms that are read in one go: a kernel of 12 x 12 over one map; and of more than that

/** A new element; properties that are no DOM property are set as attributes, children are nodes or text. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat());
  return element;
}

export function button(action, ...content) {
  const made = el("button", { type: "button" }, ...content);
  made.addEventListener("click", action);
  return made;
}

/** A link within the page. In a notebook's frame its address would be the notebook's: the action goes there instead. */
export function link(place, action, ...content) {
  const made = el("a", { href: `#${place}` }, ...content);
  made.addEventListener("click", (event) => {
    event.preventDefault();
    action();
  });
  return made;
}

/** Three figures; whole numbers in full. JSON has no infinity: null is the -inf around an image that is max-pooled. */
export function number(value) {
  if (value === null) return "−∞";
  if (Math.abs(value) < 1e-12) return "0";
  const size = Math.abs(value);
  const whole = Number.isInteger(value) && size < 1e6;
  const shown = whole ? value : size < 1e-3 ? value.toExponential(2) : Number(value.toPrecision(3));
  return String(shown).replaceAll("-", "−");
}

/** Whether the shown number is the number, up to the last bits of a double. */
function exact(value) {
  const shown = Number(number(value).replaceAll("−", "-"));
  return Math.abs(shown - value) <= 1e-9 * Math.abs(value);
}

/** x11 with its indices lowered. */
export function symbol(text) {
  const parts = /^(\D+)([\d,]+)$/.exec(text);
  return parts ? [el("i", {}, parts[1]), el("sub", {}, parts[2])] : [text];
}

/** The coefficient that all terms have, which then stands once before their sum. */
function shared({ terms }) {
  const first = terms[0]?.coefficient;
  return terms.length > 1 && first !== 1 && terms.every((term) => term.coefficient === first) ? first : null;
}

/** The product of a term as pieces {text, role?, symbol?}; its sign stands before it, a negative number in brackets. */
function product(model, panel, term, kind, scaled, first) {
  const grids = model.page.grids;
  const pieces = [];
  const times = { symbols: " ", numbers: " × ", speech: " times " }[kind];
  const coefficient = Math.abs(term.coefficient);
  const size = (panel.coef_text ?? number(coefficient)).replace(/^[-−]/, "");
  if (scaled && coefficient !== 1) pieces.push({ text: size + times });
  term.factors.forEach(([name, index], k) => {
    const grid = grids[name];
    if (k) pieces.push({ text: times });
    if (kind === "symbols") return pieces.push({ text: grid.symbols[index], role: grid.role, symbol: true });
    const value = number(grid.values[index]);
    const spoken = value.replace(/^−/, "minus ");
    const bare = first && k === 0 && (!scaled || term.coefficient === 1);
    const written = grid.values[index] < 0 && !bare ? `(${value})` : value;
    pieces.push({ text: kind === "speech" ? spoken : written, role: grid.role });
  });
  return pieces;
}

/** The sum of a step as pieces: kind is "symbols", "numbers" or "speech". Empty where the step is no sum. */
export function sum(model, panel, step, kind) {
  const common = shared(step);
  const words = kind === "speech";
  const pieces = step.terms.flatMap((term, t) => {
    const minus = term.coefficient < 0 && common === null;
    const sign = minus ? (words ? "minus " : "−") : "";
    const between = t === 0 ? sign : minus ? (words ? " minus " : " − ") : words ? " plus " : " + ";
    return [{ text: between }, ...product(model, panel, term, kind, common === null, t === 0)];
  });
  if (common === null) return pieces;
  const front = `${panel.coef_text ?? number(common)} ${words ? "times the sum of " : "("}`;
  return [{ text: front }, ...pieces, { text: words ? "" : ")" }];
}

const plain = (pieces) => pieces.map((piece) => piece.text).join("");

export const nodes = (pieces) => pieces.map(({ text, role, symbol: lowered }) =>
  role ? el("span", { className: `factor ${role}` }, lowered ? symbol(text) : text) : text);

/** "=" where all shown numbers are the numbers themselves, else "≈". */
export function equals(model, panel, step) {
  const grids = model.page.grids;
  const numbers = step.terms.flatMap(({ coefficient, factors }) =>
    [panel.coef_text ? 1 : coefficient, ...factors.map(([name, index]) => grids[name].values[index])]);
  return [...numbers, grids[panel.result].values[step.cell]].every(exact) ? "=" : "≈";
}

/** The terms to be read in one go: all, or the first few of very many; and how many more there are. */
export function brief({ terms }) {
  return terms.length > MOST ? { terms: terms.slice(0, FEW), more: terms.length - FEW } : { terms, more: 0 };
}

/** A sum as text, in brief. */
function told(model, panel, step, kind) {
  const { terms, more } = brief(step);
  return plain(sum(model, panel, { terms }, kind)) + (more ? ` and ${more} more products` : "");
}

/** The whole step in one line: y11 = x11 w11 + x12 w12 = 1 × 2 + 3 × 4 = 14. */
export function line(model, panel, step) {
  const grid = model.page.grids[panel.result];
  const result = number(grid.values[step.cell]);
  if (!step.terms.length) return `${grid.symbols[step.cell]} = ${result}`;
  const [symbols, numbers] = ["symbols", "numbers"].map((kind) => told(model, panel, step, kind));
  return `${grid.symbols[step.cell]} = ${symbols} = ${numbers} ${equals(model, panel, step)} ${result}`;
}

/** A step read aloud. */
export function speech(model, panel, step) {
  const grid = model.page.grids[panel.result];
  const result = number(grid.values[step.cell]).replace(/^−/, "minus ");
  const terms = step.terms.length ? `${told(model, panel, step, "speech")} equals ` : "is ";
  return `${grid.symbols[step.cell]}: ${terms}${result}. ${step.say ?? ""}`.trim();
}

/** A cell read aloud: its symbol, its number, and its sum where a panel makes it. */
export function cellSpeech(model, name, index) {
  const grid = model.page.grids[name];
  const key = keyOf(model.page, name, index);
  if (key === null) return `${number(grid.values[index])}, put there`;
  const value = `${grid.symbols[index]}, ${number(grid.values[index]).replace(/^−/, "minus ")}`;
  const [own] = model.made.get(key) ?? [];
  return own ? `${value}. ${speech(model, model.panels[own.p], model.panels[own.p].steps[own.s])}` : value;
}
