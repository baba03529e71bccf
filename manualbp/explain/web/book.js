// Search over ENTRIES, which search.js assigns; the list of pages; and what is too wide, for the keyboard.

const MOST = 40; // entries shown
const AROUND = 70; // characters before the first word that was found
const [form, found] = [document.querySelector("form"), document.getElementById("found")];
const input = form.querySelector("input"), status = found.querySelector("p"), list = found.querySelector("ul");

const el = (tag, props, ...content) => {
  const made = Object.assign(document.createElement(tag), props);
  made.append(...content);
  return made;
};
const places = (text, word) => text.toLowerCase().indexOf(word);

/** How well an entry fits: 0 if a word is nowhere in it. A title counts more than a text, a whole word more than a part. */
function fit({ title, page, text }, words) {
  let sum = 0;
  for (const word of words) {
    const whole = new RegExp(`(?<![\\p{L}\\p{N}_])${RegExp.escape?.(word) ?? word.replace(/[^\p{L}\p{N}_]/gu, "\\$&")}(?![\\p{L}\\p{N}_])`, "iu");
    const own = (where, weight) => (whole.test(where) ? 2 * weight : places(where, word) >= 0 ? weight : 0);
    const most = Math.max(own(title, 8), own(page, 3), own(text, 1));
    if (!most) return 0;
    sum += most;
  }
  return sum;
}

/** The text around the first of the words, with all of them marked. */
function excerpt(text, words) {
  const first = Math.min(...words.map((word) => places(text, word)).filter((at) => at >= 0));
  const start = Number.isFinite(first) && first > AROUND ? text.lastIndexOf(" ", first - AROUND) + 1 : 0;
  const shown = text.slice(start, start + 3 * AROUND);
  const made = el("span", { className: "excerpt" }, start ? "… " : "");
  for (let at = 0; at < shown.length; ) {
    const next = words.map((word) => [shown.toLowerCase().indexOf(word, at), word.length]).filter(([p]) => p >= 0)
      .sort((a, b) => a[0] - b[0] || b[1] - a[1])[0] ?? [shown.length, 0];
    made.append(shown.slice(at, next[0]), ...(next[1] ? [el("mark", {}, shown.slice(next[0], next[0] + next[1]))] : []));
    at = next[0] + next[1];
  }
  return made;
}

function search() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  found.hidden = !words.length;
  if (found.hidden) return;
  const best = ENTRIES.map((entry) => [fit(entry, words), entry]).filter(([sum]) => sum).sort((a, b) => b[0] - a[0]);
  status.textContent = best.length > MOST ? `The best ${MOST} of ${best.length} places` :
    best.length === 1 ? "1 place" : `${best.length || "No"} places`;
  list.replaceChildren(...best.slice(0, MOST).map(([, entry]) => el("li", {}, el("a", { href: entry.href },
    el("b", {}, entry.title), entry.page === entry.title ? "" : ` ${entry.page}`, excerpt(entry.text, words)))));
}

function close() {
  found.hidden = true;
}

/** By arrow from the words to the places and on; Escape leaves them, / goes to the words. */
function watchKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const links = [...list.querySelectorAll("a")], at = links.indexOf(document.activeElement);
    const inside = at >= 0 || document.activeElement === input;
    if (event.key === "/" && document.activeElement !== input) input.focus();
    else if (event.key === "Escape" && !found.hidden) {
      input.focus();
      close();
    } else if (inside && !found.hidden && event.key === "ArrowDown") links[Math.min(at + 1, links.length - 1)]?.focus();
    else if (inside && !found.hidden && event.key === "ArrowUp") (links[at - 1] ?? input).focus();
    else return;
    event.preventDefault();
  });
}

/** What is too wide for its place can be reached by tab and moved by arrows. */
function watchWidths() {
  const wide = document.querySelectorAll("pre, .wide, .formula");
  const mark = () => wide.forEach((each) => {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
    else each.removeAttribute("tabindex");
  });
  mark();
  addEventListener("resize", mark);
}

form.hidden = false;
document.querySelector("nav details").open = innerWidth > 900;
form.addEventListener("submit", (event) => {
  event.preventDefault();
  list.querySelector("a")?.click();
});
input.addEventListener("input", search);
input.addEventListener("focus", search);
list.addEventListener("click", (event) => event.target.closest("a") && close());
document.addEventListener("pointerdown", ({ target }) => target.closest("header") || close());
addEventListener("beforeprint", close);
watchKeys();
watchWidths();
document.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
