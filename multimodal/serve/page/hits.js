// Hits: as pictures, drawings, sounds or texts, with what can be done with each.

const PLAIN = new Intl.NumberFormat("en"), SIGNED = new Intl.NumberFormat("en", { signDisplay: "always", minimumFractionDigits: 3, maximumFractionDigits: 3 });

const media = (route, hit) => `${route}?key=${encodeURIComponent(hit.key)}&modality=${encodeURIComponent(hit.modality)}`;

const isCharacter = (value) => typeof value === "string" && value.trim() !== "" && [...new Intl.Segmenter().segment(value)].length === 1;

/** The words that name a hit: its first column of words, or its key. */
function titleOf(hit) {
  const texts = Object.values(hit.metadata ?? {}).filter((value) => typeof value === "string" && value && !isCharacter(value));
  return texts[0] ?? hit.key;
}

function characterOf(hit) { return Object.values(hit.metadata ?? {}).find((value) => isCharacter(value) && !/^[\p{L}\p{N}]$/u.test(value)) ?? hit.metadata?.character ?? null; }

/** A text for reading: names in capitals alone, as Unicode has them, become lower case. */
function readable(text) { return text.length > 4 && text === text.toUpperCase() && text !== text.toLowerCase() ? text[0] + text.slice(1).toLowerCase() : text; }

const ICONS = {
  like: "M10 4v12M4 10h12", unlike: "M4 10h12", explain: "M7.5 7.5a2.6 2.6 0 1 1 3.6 2.4c-.8.4-1.1.9-1.1 1.8M10 14.6v.1M10 2.5a7.5 7.5 0 1 1 0 15a7.5 7.5 0 1 1 0-15",
  up: "M3 9h3v8H3zM6 9l4-6.5c1.5 0 2.2 1 1.9 2.5L11.3 8H16c1.2 0 1.8.9 1.5 2l-1.5 5.5c-.3 1-1 1.5-2 1.5H6",
  down: "M3 11h3V3H3zM6 11l4 6.5c1.5 0 2.2-1 1.9-2.5L11.3 12H16c1.2 0 1.8-.9 1.5-2l-1.5-5.5c-.3-1-1-1.5-2-1.5H6", copy: "M7 7h9v10H7zM13 7V3H4v10h3",
};

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.setAttribute("viewBox", "0 0 20 20"); svg.setAttribute("aria-hidden", "true"); svg.setAttribute("class", "icon");
  svg.append(path);
  return svg;
}

/** Make the element of a hit. `act(name, hit, button)` is called for its buttons. */
function hitElement(hit, { about, query, act }) {
  const title = titleOf(hit), character = characterOf(hit), known = hit.probability !== undefined;
  const meta = Object.entries(hit.metadata ?? {}).filter(([, value]) => value !== null && value !== "" && value !== title && value !== character);
  const liked = (name) => query[name].some((row) => row.key === hit.key);
  const button = (name, label, pressed, content = icon(name)) => make("button", {
    type: "button", title: label, className: name, onclick: (event) => act(name, hit, event.currentTarget),
    aria: { label: `${label}: ${title}`, ...(pressed === undefined ? {} : { pressed }) },
  }, content);
  const actions = make("div", { className: "actions" }, button("like", "More like this", liked("like")), button("unlike", "Less like this", liked("unlike")));
  if (about.feedback) actions.append(button("up", "A good hit", false), button("down", "A wrong hit", false));
  actions.append(button("explain", "Why it matched"));
  const score = known ? `P(match) ${Math.round(hit.probability * 100)} %` : `score ${hit.score.toFixed(3)}`;
  const bar = make("i", { aria: { hidden: "true" } });
  bar.style.setProperty("--part", Math.max(0, Math.min(1, known ? hit.probability : hit.score)));
  const copied = button("copy", character ? `Copy ${character}` : "Copy the text", undefined, character ?? icon("copy"));
  const kind = about.modalities[hit.modality]?.kind, twice = kind === "text" || (!about.media && kind !== "audio");  // the title is the value
  return make("li", { className: "hit", tabIndex: -1, hit, data: { key: hit.key } },
    valueElement(hit, about, title, character, copied),
    make("div", { className: "score", title: `score ${hit.score.toFixed(3)}` }, make("span", { textContent: score }), bar),
    make("p", { className: "meta words", textContent: `Has the words: ${(hit.words ?? []).join(" ")}`, hidden: !hit.words }),
    make("p", { className: "title", textContent: readable(title), hidden: twice }),
    make("p", { className: "meta", textContent: meta.map(([, value]) => value).join(" · "), title: meta.map(([name, value]) => `${name}: ${value}`).join("\n") }),
    actions);
}

function valueElement(hit, about, title, character, copied) {
  const kind = about.modalities[hit.modality]?.kind, box = make("div", { className: "value" });
  const asText = () => {
    box.classList.add("text");
    const text = make("p", { textContent: readable(title) });
    box.replaceChildren(text, copied);
    if (about.media) ask(media("/value", hit)).then((found) => { if (found.text !== null) text.textContent = readable(found.text); }).catch(() => {});
  };
  if (!about.media || kind === "text" || kind === "tabular") asText();
  else if (kind === "audio") {
    box.classList.add("sound");
    box.append(make("audio", { controls: true, preload: "none", src: media("/sound", hit), aria: { label: title } }), copied);
  } else box.append(make("img", { src: media("/picture", hit), alt: title, loading: "lazy", draggable: false, onerror: asText }), copied);
  return box;
}

/** Copy a text, also where the clipboard is not allowed (a page without TLS that is not on this machine). */
async function copyText(text) {
  try { await navigator.clipboard.writeText(text); return; } catch { /* the older way */ }
  const area = make("textarea", { value: text });
  document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
}

/** What an explanation says, as elements. */
function explanationElements(found) {
  const shown = [make("h2", { textContent: "Why it matched" })];
  for (const role of ["query", "match"]) {
    const value = found[role], parts = value.parts.filter((part) => part.change !== null);
    shown.push(make("h3", { textContent: `${role === "query" ? "The query" : "This hit"}: what each part adds to the score` }));
    if (value.drawing) { const drawing = make("div", { className: "drawing" }); drawing.innerHTML = value.drawing; shown.push(drawing); }
    if (!parts.length) shown.push(make("p", { className: "soft", textContent: value.note || "It has no parts." }));
    if (value.drawing && value.modality !== "text" && parts.length > 12) continue;  // patches of a picture have no names
    const strongest = [...parts].sort((a, b) => Math.abs(b.change) - Math.abs(a.change)).slice(0, 5);
    const most = Math.max(...strongest.map((part) => Math.abs(part.change)), 1e-6), grid = make("div", { className: "worth" });
    for (const part of strongest) {
      const bar = make("i");
      bar.style.setProperty("--part", Math.abs(part.change) / most);
      bar.style.setProperty("--c", part.change < 0 ? "var(--wrong)" : "var(--bar)");
      grid.append(make("span", { textContent: part.name }), bar, make("b", { textContent: SIGNED.format(part.change) }));
    }
    shown.push(grid);
  }
  return shown;
}
