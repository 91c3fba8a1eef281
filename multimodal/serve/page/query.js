// The query: what is typed, drawn, given as a file and liked, the filters, and the same as a link and as a request.

const $ = (id) => document.getElementById(id);

/** Make an element: properties are set, children appended; texts are never read as HTML. */
function make(tag, properties = {}, ...children) {
  const { aria = {}, data = {}, ...rest } = properties, element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(name === "role" ? name : `aria-${name}`, value);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

/** Ask the server; its own words are the error's message. */
async function ask(path, body, signal) {
  const sent = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, { ...sent, signal }), text = await answer.text();
  let read = null;
  try { read = text ? JSON.parse(text) : null; } catch { /* another server's page */ }
  if (!answer.ok) throw new Error(read?.error?.message ?? `The server answered with ${answer.status}.`);
  return read;
}

class Query {
  constructor(about, drawing) {
    this.about = about; this.drawing = drawing;
    this.clear();
  }

  clear() { Object.assign(this, { text: "", typed: this.about.typed[0] ?? null, file: null, like: [], unlike: [], where: {}, balance: 50, words: false }); }

  get drawn() { return Boolean(this.drawing && !this.drawing.empty); }

  /** Modality -> value, as a request has them. */
  values() {
    const values = {};
    if (this.text.trim() && this.typed) values[this.typed] = this.text.trim();
    if (this.drawn) values[this.about.drawn] = this.drawing.picture();
    if (this.file) values[this.file.modality] = this.file.value;
    return values;
  }

  get empty() { return !Object.keys(this.values()).length && !this.like.length; }

  request(target, k) {
    const values = this.values(), names = Object.keys(values), asked = { ...values, k };
    if (target) asked.target = target;
    if (this.words && this.text.trim()) asked.hybrid = this.text.trim();
    if (this.like.length) asked.like = this.like.map((row) => row.key);
    if (this.unlike.length) asked.unlike = this.unlike.map((row) => row.key);
    if (Object.keys(this.where).length) asked.where = this.where;
    if (names.length > 1) {
      const other = Math.max(.02, Math.min(.98, this.balance / 100));
      asked.weights = Object.fromEntries(names.map((name) => [name, name === this.typed ? 1 - other : other]));
    }
    return asked;
  }

  /** The query as the fragment of a link; a file is not part of it. */
  toLink(target) {
    const link = new URLSearchParams();
    if (this.text) link.set("q", this.text);
    if (this.text && this.typed !== this.about.typed[0]) link.set("as", this.typed);
    if (target !== this.about.firstTarget) link.set("find", target || "all");
    for (const name of ["like", "unlike"]) for (const row of this[name]) link.append(name, row.key);
    for (const [column, values] of Object.entries(this.where)) for (const value of values) link.append(`only.${column}`, value);
    if (this.balance !== 50) link.set("balance", this.balance);
    if (this.words) link.set("words", "1");
    if (this.drawn) link.set("drawn", this.drawing.encode());
    return link.toString();
  }

  /** Read a fragment, and return the target. */
  fromLink(fragment) {
    const link = new URLSearchParams(fragment);
    this.clear();
    this.text = link.get("q") ?? "";
    if (this.about.typed.includes(link.get("as"))) this.typed = link.get("as");
    for (const name of ["like", "unlike"]) this[name] = link.getAll(name).map((key) => ({ key, title: key }));
    for (const name of new Set(link.keys())) if (name.startsWith("only.")) this.where[name.slice(5)] = link.getAll(name);
    this.words = this.about.words && link.has("words");
    const balance = Number(link.get("balance") ?? 50);
    this.balance = balance >= 0 && balance <= 100 ? balance : 50;
    if (this.drawing) {
      this.drawing.set([]);
      if (link.has("drawn")) this.drawing.decode(link.get("drawn"));
    }
    const target = link.get("find");
    return target === "all" ? "" : this.about.targets.includes(target) ? target : this.about.firstTarget;
  }
}
