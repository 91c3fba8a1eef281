// The page: what is typed, drawn, dropped and chosen becomes a request; its answer becomes hits. A later request always wins.

const PAUSE = 60, STEP = 20, MOST = 1000, WHY_AFTER = 450;  // milliseconds, hits, hits, milliseconds
const SEEN_AFTER = 2000, MOST_SHOWN = 100;  // milliseconds from which on hits count as looked at, keys in a judgement

class Page {
  constructor(about) {
    this.about = about; this.target = about.firstTarget; this.shown = STEP; this.latest = 0; this.explained = new Map();
    this.drawing = about.drawn ? new Drawing(about.sketch, () => this.changed(0)) : null;
    this.query = new Query(about, this.drawing);
    this.map = new SpaceMap((key, title) => this.like("like", { key, metadata: { title } }));
    this.#build(); this.#listen();
    this.open();
  }

  #build() {
    const { about } = this;
    $("draw").hidden = !this.drawing;
    $("choices").open = !matchMedia("(max-width: 820px)").matches;
    $("typed-as").replaceChildren(...about.typed.map((name) => new Option(name, name)));
    $("typed-as").hidden = about.typed.length < 2;
    $("search").hidden = !about.typed.length;
    $("choose").hidden = !about.files.length;
    $("box").placeholder = about.typed.length ? `Search by ${about.typed.join(" or ")}` : "";
    const tabs = about.targets.length > 1 ? [...about.targets, ""] : about.targets;
    $("targets").replaceChildren(...tabs.map((name) => make("button", {
      type: "button", textContent: name ? about.names[name] : "All", id: `tab-${name || "all"}`, data: { target: name },
      aria: { role: "tab", controls: "found" }, onclick: () => { this.target = name; this.changed(0); },
    })));
    $("about").textContent = `${about.model}: ${PLAIN.format(about.vectors)} vectors of ${about.targets.join(", ")}`;
  }

  #listen() {
    $("search").onsubmit = (event) => { event.preventDefault(); this.changed(0); };
    $("box").oninput = () => { this.query.text = $("box").value; this.changed(); };
    $("typed-as").onchange = (event) => { this.query.typed = event.target.value; this.changed(0); };
    $("words").onchange = (event) => { this.query.words = event.target.checked; this.changed(0); };
    $("weight").oninput = (event) => { this.query.balance = Number(event.target.value); this.changed(); };
    $("choose").onclick = () => $("file").click();
    $("file").onchange = (event) => { this.take(event.target.files[0]); event.target.value = ""; };
    $("link").onclick = async () => { await copyText(location.href); this.say("Link copied" + (this.query.file ? ", without the file" : "")); };
    $("more").onclick = () => { this.shown = Math.min(MOST, this.shown + 2 * STEP); this.search(); };
    addEventListener("hashchange", () => { if (location.hash.slice(1) !== this.link) this.open(); });
    addEventListener("keydown", (event) => this.#key(event));
    addEventListener("paste", (event) => { const file = event.clipboardData?.files[0]; if (file) { event.preventDefault(); this.take(file); } });
    addEventListener("dragover", (event) => { event.preventDefault(); $("drop").hidden = false; });
    addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
    addEventListener("drop", (event) => {
      event.preventDefault(); $("drop").hidden = true;
      const file = event.dataTransfer.files[0], text = event.dataTransfer.getData("text/plain");
      if (file) this.take(file);
      else if (text) { this.query.text = $("box").value = text.trim(); this.changed(0); }
    });
    $("hits").addEventListener("click", (event) => { const hit = event.target.closest(".value")?.closest(".hit"); if (hit) this.used(hit.hit); });
    $("missing-form").onsubmit = (event) => this.missing(event);
    $("hits").addEventListener("pointerover", (event) => this.#hover(event));
    $("hits").addEventListener("pointerout", (event) => { if (!event.relatedTarget?.closest?.(".value, .score")) this.hideWhy(); });
    addEventListener("scroll", () => this.hideWhy(), { passive: true });
  }

  /** Open the query of the link in the address bar. */
  open() {
    try { this.target = this.query.fromLink(location.hash.slice(1)); } catch (error) {
      this.showQuery(); this.show([]); this.facets(); this.fail(new Error(`The link cannot be read: ${error.message}`));
      return;  // the link remains in the address bar
    }
    $("box").value = this.query.text; $("weight").value = this.query.balance;
    if (this.query.typed) $("typed-as").value = this.query.typed;
    this.changed(0);
  }

  /** Search after a pause without further changes. */
  changed(pause = PAUSE) {
    this.shown = STEP;
    this.showQuery();
    clearTimeout(this.timer);
    if (pause) this.timer = setTimeout(() => this.search(), pause);
    else this.search();
  }

  async search() {
    clearTimeout(this.timer);
    const mine = this.latest += 1, started = performance.now();
    this.leave();
    this.stop?.abort();
    this.stop = new AbortController();
    this.hideWhy();
    this.link = this.query.toLink(this.target);
    history.replaceState(null, "", `#${this.link}`);
    document.title = this.query.text ? `${this.query.text} · Search` : "Search";
    if (this.query.empty) { this.show([]); this.facets(); return; }
    $("found").classList.add("waiting");
    const asked = this.query.request(this.target, this.shown);
    try {
      const { hits, query_id } = await ask("/search", asked, this.stop.signal);
      if (mine !== this.latest) return;  // the answer to an earlier query
      this.show(hits);
      this.searched = { query: this.#described(), target: this.target || null, link: this.link, query_id: query_id ?? randomName() };
      this.seen = performance.now(); this.judged = new Set();
      this.say(hits.length ? `${hits.length} hits in ${Math.round(performance.now() - started)} ms` : "Nothing found");
    } catch (error) {
      if (mine !== this.latest || error.name === "AbortError") return;
      this.show([]); this.fail(error);
    }
    this.facets();
    this.#locate(asked);
  }

  show(hits) {
    this.hits = hits;
    const texts = hits.every((hit) => ["text", "tabular", "audio"].includes(this.about.modalities[hit.modality]?.kind));
    $("hits").className = texts && hits.length ? "hits texts" : "hits";
    $("hits").replaceChildren(...hits.map((hit) => hitElement(hit, { about: this.about, query: this.query, act: (...given) => this.act(...given) })));
    if ($("hits").firstChild) $("hits").firstChild.tabIndex = 0;
    $("found").classList.remove("waiting");
    $("start").hidden = hits.length > 0 || !this.query.empty;
    $("more").hidden = hits.length < this.shown || this.shown >= MOST;
    $("missing").hidden = !this.about.feedback || this.query.empty;
    $("fault").hidden = true;
    if (!hits.length) this.say("");
  }

  say(words) { $("status").textContent = words; }

  fail(error) { $("fault").textContent = error.message; $("fault").hidden = false; this.say(""); }

  showQuery() {
    const { query } = this, parts = [];
    $("words").checked = query.words; $("words-too").hidden = !this.about.words || !query.text.trim();
    const part = (label, picture, remove) => parts.push(make("span", { className: "part" }, ...(picture ? [make("img", { src: picture, alt: "" })] : []),
      make("span", { textContent: label }), make("button", { type: "button", textContent: "×", aria: { label: `Remove ${label}` }, onclick: () => { remove(); this.changed(0); } })));
    if (query.file) part(query.file.name, query.file.value.startsWith?.("data:image/") ? query.file.value : null, () => { query.file = null; });
    for (const name of ["like", "unlike"]) for (const row of query[name]) {
      part(`${name === "like" ? "like" : "not like"} ${row.title}`, null, () => { query[name] = query[name].filter((other) => other !== row); });
    }
    for (const [column, values] of Object.entries(query.where)) for (const value of values) part(`${column}: ${value}`, null, () => this.only(column, value, false));
    $("parts").replaceChildren(...parts); $("parts").hidden = !parts.length;
    const names = Object.keys(query.values());
    $("balance").hidden = names.length < 2 || !names.includes(query.typed);
    $("balance-left").textContent = query.typed; $("balance-right").textContent = names.filter((name) => name !== query.typed).map((name) => (query.drawn && name === this.about.drawn ? "drawing" : name)).join(", ");
    for (const tab of $("targets").children) {
      const chosen = tab.dataset.target === this.target;
      tab.setAttribute("aria-selected", chosen); tab.tabIndex = chosen ? 0 : -1;
      if (chosen) $("found").setAttribute("aria-labelledby", tab.id);
    }
  }

  /** Search with a file: as the modality of its type, or as the only one that takes files. */
  take(file) {
    if (!file) return;
    const { about } = this, kind = file.type.split("/")[0];
    const modality = about.files.find((name) => about.modalities[name].kind === kind) ?? about.files.find((name) => !["image", "audio"].includes(about.modalities[name].kind));
    if (kind === "text" && !modality && about.typed.length) {
      file.text().then((text) => { this.query.text = $("box").value = text.trim().slice(0, 10000); this.changed(0); });
      return;
    }
    if (!modality || (["image", "audio"].includes(kind) && about.modalities[modality].kind !== kind)) { this.fail(new Error(`This model does not read ${file.type || "this kind of file"}.`)); return; }
    if (file.size > about.max_body * .7) { this.fail(new Error(`${file.name} is too large: this server takes ${Math.floor(about.max_body * .7 / 2 ** 20)} MiB.`)); return; }
    const reader = new FileReader();
    reader.onload = () => { this.query.file = { modality, name: file.name || "file", value: reader.result }; if (modality === about.drawn && this.drawing) this.drawing.set([]); this.changed(0); };
    reader.readAsDataURL(file);
  }

  act(name, hit, button) {
    if (name === "like" || name === "copy") this.used(hit);
    if (name === "like" || name === "unlike") this.like(name, hit);
    else if (name === "copy") copyText(characterOf(hit) ?? titleOf(hit)).then(() => this.say(`Copied ${characterOf(hit) ?? titleOf(hit)}`));
    else if (name === "explain") this.explain(hit, button.closest(".hit"));
    else this.judge(name, hit, button);
  }

  like(name, hit) {
    const row = { key: hit.key, title: titleOf(hit).toLowerCase() }, other = name === "like" ? "unlike" : "like", { query } = this;
    const known = query[name].some(({ key }) => key === row.key);
    query[name] = known ? query[name].filter(({ key }) => key !== row.key) : [...query[name], row];
    query[other] = query[other].filter(({ key }) => key !== row.key);
    this.changed(0);
  }

  async judge(verdict, hit, button) {
    try {
      await this.#send(verdict, hit);
      for (const each of button.parentElement.querySelectorAll(".up, .down")) each.setAttribute("aria-pressed", each === button);
      this.say("Thank you");
    } catch (error) { this.fail(error); }
  }

  /** Note that a hit was used, once for each search. */
  used(hit) {
    const name = JSON.stringify([hit.key, hit.modality]);
    if (!this.about.feedback || !this.searched || this.judged.has(name)) return;
    this.judged.add(name);
    this.#send("clicked", hit).catch(() => {});
  }

  /** Note that hits were looked at and none was used, as another search begins. */
  leave() {
    const looked = this.about.feedback && this.searched && this.hits?.length && !this.judged.size && performance.now() - this.seen > SEEN_AFTER;
    if (looked) this.#send("unused", null).catch(() => {});
    this.searched = null;
  }

  async missing(event) {
    event.preventDefault();
    const key = $("missing-key").value.trim();
    if (!key || !this.searched) return;
    try {
      await this.#send("missing", { key, modality: this.searched.target ?? "" });
      $("missing-key").value = ""; $("missing").open = false;
      this.say("Thank you");
    } catch (error) { this.fail(error); }
  }

  #send(verdict, hit) {
    const judgement = { ...this.searched, verdict, shown: this.hits.slice(0, MOST_SHOWN).map(({ key }) => key) };
    if (hit) Object.assign(judgement, { key: hit.key, modality: hit.modality });
    if (hit?.score !== undefined) judgement.score = hit.score;
    const position = this.hits.indexOf(hit) + 1;
    if (position) judgement.position = position;
    if (hit) this.judged.add(JSON.stringify([hit.key, hit.modality]));
    return ask("/feedback", judgement);
  }

  /** The values of the query, files by their names. */
  #described() {
    const values = this.query.values();
    if (this.query.drawn) values[this.about.drawn] = "drawing";
    if (this.query.file) values[this.query.file.modality] = this.query.file.name;
    return values;
  }

  #locate(asked) {
    clearTimeout(this.locating);
    const values = this.query.values();
    this.locating = setTimeout(() => this.map.locate({ ...asked, values: Object.keys(values).length ? values : null }, this.hits).catch(() => {}), 250);
  }

  async facets() {
    const { where } = this.query, state = JSON.stringify(where);
    if (state === this.counted || !this.about.filters.length) return;
    this.counted = state;
    const columns = await Promise.all(this.about.filters.map(async (filter) => {
      const others = Object.fromEntries(Object.entries(where).filter(([column]) => column !== filter.column));
      if (!Object.keys(others).length) return filter;
      const counts = await ask(`/facets?${new URLSearchParams({ column: filter.column, limit: 41, where: JSON.stringify(others) })}`).catch(() => null);
      return counts ? { column: filter.column, values: counts.values, all: filter.all ?? filter.values } : filter;
    }));
    if (state !== JSON.stringify(this.query.where)) return;
    $("filters").hidden = false;
    const focused = document.activeElement?.closest?.(".choice")?.dataset.choice;
    $("facets").replaceChildren(...columns.map(({ column, values, all }) => make("fieldset", {}, make("legend", { textContent: column }),
      make("div", { className: "choices" }, ...Object.keys(all ?? values).map((value) => make("label", { className: "choice", data: { choice: `${column}=${value}` } },
        make("input", { type: "checkbox", checked: (where[column] ?? []).includes(value), onchange: (event) => this.only(column, value, event.target.checked, true) }),
        make("span", { textContent: value, title: value }), make("small", { textContent: PLAIN.format(values[value] ?? 0) })))))));
    if (focused) [...$("facets").querySelectorAll(".choice")].find((each) => each.dataset.choice === focused)?.firstChild.focus();
  }

  only(column, value, wanted, search = false) {
    const { where } = this.query, left = (where[column] ?? []).filter((other) => other !== value);
    where[column] = wanted ? [...left, value] : left;
    if (!where[column].length) delete where[column];
    if (search) this.changed(0);
  }

  #hover(event) {
    const hit = event.target.closest(".value, .score")?.closest(".hit");
    if (!hit || event.pointerType === "touch" || hit === this.hovered) return;
    clearTimeout(this.waiting);
    this.hovered = hit;
    this.waiting = setTimeout(() => this.explain(hit.hit, hit), WHY_AFTER);
  }

  hideWhy() { clearTimeout(this.waiting); this.hovered = null; $("why").hidden = true; }

  async explain(hit, element) {
    const [modality, value] = Object.entries(this.query.values())[0] ?? [];
    this.hovered = element;
    let found = [make("p", { textContent: "It is like the rows that you chose." })];
    if (modality) {
      const name = JSON.stringify([modality, value, hit.key, hit.modality]);
      if (!this.explained.has(name)) {
        if (this.explained.size > 200) this.explained.clear();
        this.explained.set(name, ask("/explain", { query: { [modality]: value }, key: hit.key, target: hit.modality }));
      }
      try { found = explanationElements(await this.explained.get(name)); } catch (error) { this.explained.delete(name); found = [make("p", { textContent: error.message })]; }
    }
    if (this.hovered !== element || !element.isConnected) return;
    const tip = $("why"), box = element.getBoundingClientRect();
    tip.replaceChildren(...found); tip.hidden = false;
    const left = box.right + 10 + tip.offsetWidth < innerWidth ? box.right + 10 : box.left - 10 - tip.offsetWidth;
    tip.style.left = `${Math.max(12, Math.min(left < 12 ? box.left : left, innerWidth - tip.offsetWidth - 12))}px`;
    tip.style.top = `${Math.max(12, Math.min(left < 12 ? box.bottom + 8 : box.top, innerHeight - tip.offsetHeight - 12))}px`;
  }

  #key(event) {
    const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), textarea, select"), hits = [...$("hits").children];
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); $("box").focus(); $("box").select(); return; }
    if (event.key === "Escape") {
      if (!$("why").hidden) this.hideWhy();
      else if (event.target === $("box")) { if ($("box").value) { this.query.text = $("box").value = ""; this.changed(0); } else $("box").blur(); }
      else $("box").focus();
      event.preventDefault(); return;
    }
    if (event.target.matches("[role=tab]") && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
      const tabs = [...$("targets").children], next = tabs[(tabs.indexOf(event.target) + (event.key === "ArrowRight" ? 1 : tabs.length - 1)) % tabs.length];
      next.focus(); next.click(); event.preventDefault(); return;
    }
    if (event.target === $("box") && event.key === "ArrowDown" && hits.length) { this.#focus(hits[0]); event.preventDefault(); return; }
    const at = hits.indexOf(event.target);
    if (at < 0) return;
    if (event.key === "Enter") { this.used(event.target.hit); this.like("like", event.target.hit); event.preventDefault(); return; }
    const across = hits.filter((hit) => hit.offsetTop === hits[0].offsetTop).length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
    if (!step) return;
    event.preventDefault();
    if (hits[at + step]) this.#focus(hits[at + step]); else if (at + step < 0) $("box").focus();
  }

  #focus(hit) {
    for (const each of $("hits").children) each.tabIndex = each === hit ? 0 : -1;
    hit.focus();
  }
}

async function begin() {
  const about = await ask("/about"), names = Object.keys(about.modalities);
  about.targets = [...about.targets].sort((a, b) => rank(about, a) - rank(about, b));
  about.typed = names.filter((name) => !about.modalities[name].file && about.modalities[name].kind !== "tabular").sort((a, b) => rank(about, b) - rank(about, a));
  about.files = names.filter((name) => about.modalities[name].file);
  about.drawn = names.find((name) => about.modalities[name].kind === "image") ?? null;
  about.sketch = about.drawn ? await ask("/sketch") : null;
  about.firstTarget = about.targets[0] ?? "";
  const words = { image: "Pictures", text: "Texts", audio: "Sounds", graph: "Graphs", tabular: "Rows", video: "Videos" };
  const kinds = about.targets.map((name) => about.modalities[name]?.kind);
  about.names = Object.fromEntries(about.targets.map((name, n) => [name, kinds.filter((kind) => kind === kinds[n]).length === 1 && words[kinds[n]] || name]));
  const counted = await Promise.all(about.columns.map((column) => ask(`/facets?column=${encodeURIComponent(column)}&limit=41`).catch(() => ({ column, values: {} }))));
  about.filters = counted.filter(({ values }) => { const n = Object.keys(values).length; return n > 1 && n <= 40 && Object.values(values).some((count) => count > 1); });
  const page = new Page(about);
  await page.map.load().catch(() => {});
  const titles = [...new Set(page.map.points.map((point) => point.title))];
  $("examples").replaceChildren(...(about.typed.length ? titles.slice(0, 6) : []).map((title) => make("button", {
    type: "button", textContent: title, onclick: () => { page.query.text = $("box").value = title.toLowerCase(); page.changed(0); $("box").focus(); },
  })));
  document.documentElement.dataset.ready = "true";
}

const randomName = () => [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const rank = (about, name) => ["image", "graph", "audio", "video", "text", "tabular"].indexOf(about.modalities[name]?.kind);

begin().catch((error) => { $("fault").textContent = error.message; $("fault").hidden = false; });
