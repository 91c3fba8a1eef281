// The map: a sample of the index by its first two principal components, with the hits and the query.

const PALETTE = ["#2b7bba", "#d9730d", "#2e9e5b", "#c0417e", "#8a63d2", "#9a7b1f", "#1d9aa6", "#d1453b"];

class SpaceMap {
  /** @param {(key: string, title: string) => void} chosen called with the row of a point that is clicked */
  constructor(chosen) {
    this.chosen = chosen; this.points = []; this.hits = []; this.query = null;
    this.canvas = $("map"); this.tip = $("map-tip");
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.canvas.addEventListener("click", (event) => { const near = this.#near(event); if (near) this.chosen(near.key, near.title); });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  async load() {
    const found = await ask("/map");
    this.found = found;
    this.points = found.points;
    $("map-note").textContent = `${PLAIN.format(found.points.length)} of ${PLAIN.format(found.total)} vectors; these two directions show ${Math.round(found.explained * 100)} % of their variance. Click a point to find what is like it.`;
    $("space").hidden = !found.points.length;
    $("map-legend").replaceChildren(...found.modalities.map((name, n) => {
      const dot = make("i");
      dot.style.background = PALETTE[n % PALETTE.length];
      return make("span", {}, dot, name);
    }));
    this.draw();
  }

  /** Show where the query and its hits are: asks the server, which knows their vectors. */
  async locate(asked, hits) {
    if (!this.points.length) return;
    const mine = this.latest = (this.latest ?? 0) + 1;
    const { values, like = [], unlike = [], weights = null } = asked;
    const found = values || like.length
      ? await ask("/map", { query: values ?? {}, like, unlike, weights, hits: hits.map(({ key, modality }) => ({ key, modality })) }) : { query: null, hits: [] };
    if (mine !== this.latest) return;  // there is a later query
    this.query = found.query; this.hits = found.hits;
    this.draw();
  }

  #place([x, y]) {
    const { clientWidth: w, clientHeight: h } = this.canvas, [left, top, right, bottom] = this.found.box, edge = 14;
    const on = (value, from, to, length) => edge + Math.max(0, Math.min(1, (value - from) / (to - from || 1))) * (length - 2 * edge);
    return [on(x, left, right, w), on(-y, -bottom, -top, h)];
  }

  draw() {
    if (!this.points.length || !this.canvas.clientWidth) return;
    const scale = devicePixelRatio, colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
    this.canvas.width = this.canvas.clientWidth * scale; this.canvas.height = this.canvas.clientHeight * scale;
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    const dot = (at, radius, fill, alpha = 1) => {
      Object.assign(context, { fillStyle: fill, globalAlpha: alpha });
      context.beginPath(); context.arc(...this.#place(at), radius, 0, 7); context.fill();
    };
    const kinds = this.found.modalities;
    for (const point of this.points) dot([point.x, point.y], 1.7, PALETTE[kinds.indexOf(point.modality) % PALETTE.length], .5);
    for (const at of this.hits) if (at) dot(at, 3.5, colour("--ink"));
    if (!this.query) return;
    Object.assign(context, { globalAlpha: 1, lineWidth: 3, strokeStyle: colour("--wrong") });
    context.beginPath(); context.arc(...this.#place(this.query), 8, 0, 7); context.stroke();
  }

  #near(event) {
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, least = 14;
    for (const point of this.points) {
      const [px, py] = this.#place([point.x, point.y]), far = Math.hypot(px - x, py - y);
      if (far < least) { least = far; best = point; }
    }
    return best;
  }

  #point(event) {
    const near = this.#near(event), box = this.canvas.getBoundingClientRect();
    this.tip.hidden = !near;
    if (!near) return;
    this.tip.replaceChildren(make("b", { textContent: near.title }), make("div", { className: "soft", textContent: near.modality }));
    this.tip.style.left = `${Math.min(event.clientX - box.left + 12, box.width - 130)}px`;
    this.tip.style.top = `${event.clientY - box.top + 14}px`;
  }
}
