// The sheet: strokes by mouse, pen or finger on a grid of 256 x 256, which a link holds as it is, and the picture that is sent.

const GRID = 256, ON_SCREEN = 512, SENT = 192, PEN = 10;

class Drawing {
  /** @param {{side: number, width: number, dark: boolean}} style what the model's pictures are like, as fractions of a picture's edge
   *  @param {() => void} changed called after each change */
  constructor(style, changed) {
    this.style = style; this.changed = changed; this.strokes = []; this.pen = 1;
    this.canvas = $("sheet");
    this.canvas.addEventListener("pointerdown", (event) => this.#start(event));
    this.canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => this.#end());
    this.canvas.addEventListener("keydown", (event) => { if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo(); });
    $("undo").onclick = () => this.undo();
    $("clear").onclick = () => { this.set([]); this.changed(); };
    $("pen").oninput = (event) => { this.pen = event.target.value / 100; this.show(); if (this.strokes.length) this.changed(); };
    this.show();
  }

  get empty() { return !this.strokes.length; }

  set(strokes, pen = this.pen) { this.strokes = strokes; this.pen = pen; $("pen").value = pen * 100; this.show(); }

  undo() { if (this.strokes.pop()) { this.show(); this.changed(); } }

  show() {
    const context = this.canvas.getContext("2d"), scale = ON_SCREEN / GRID;
    context.fillStyle = "#fff"; context.fillRect(0, 0, ON_SCREEN, ON_SCREEN);
    paint(context, this.strokes, PEN * this.pen * scale, ([x, y]) => [x * scale, y * scale]);
    $("undo").disabled = $("clear").disabled = this.empty;
    $("sheet-hint").hidden = !this.empty;
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const on = (position, start, length) => Math.max(0, Math.min(GRID - 1, Math.round((position - start) / length * (GRID - 1))));
    return [on(event.clientX, box.left, box.width), on(event.clientY, box.top, box.height)];
  }

  #start(event) {
    if (event.button !== 0 || this.drawn) return;
    event.preventDefault(); this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.drawn = [this.#at(event)]; this.strokes.push(this.drawn); this.show();
  }

  #move(event) {
    if (!this.drawn) return;
    for (const each of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
      const [x, y] = this.#at(each), [lastX, lastY] = this.drawn.at(-1);
      if (Math.hypot(x - lastX, y - lastY) >= 2) this.drawn.push([x, y]);
    }
    this.show();
  }

  #end() { if (this.drawn) { this.drawn = null; this.changed(); } }

  /** The drawing as the model's pictures are: as large, centred, and with lines as thick. A data: URL of a PNG file. */
  picture() {
    const canvas = Object.assign(document.createElement("canvas"), { width: SENT, height: SENT });
    const context = canvas.getContext("2d"), points = this.strokes.flat();
    context.fillStyle = this.style.dark ? "#fff" : "#000"; context.fillRect(0, 0, SENT, SENT);
    const range = (axis) => [Math.min(...points.map((p) => p[axis])), Math.max(...points.map((p) => p[axis]))];
    const [left, right] = range(0), [top, bottom] = range(1);
    const line = this.style.width * this.pen * SENT, longest = Math.max(right - left, bottom - top, 12);
    const scale = Math.max(1, this.style.side * SENT - line) / longest;
    const place = ([x, y]) => [(x - (left + right) / 2) * scale + SENT / 2, (y - (top + bottom) / 2) * scale + SENT / 2];
    paint(context, this.strokes, line, place, this.style.dark ? "#000" : "#fff");
    return canvas.toDataURL("image/png");
  }

  /** The strokes as a text for a link: per stroke its number of points, then x and y of each, one byte each, after the pen's width. */
  encode() {
    const bytes = [Math.round(this.pen * 100)];
    for (const stroke of this.strokes) {
      for (let start = 0; start < stroke.length; start += 254) {  // a longer one goes on at its last point
        const piece = stroke.slice(start, start + 255);
        bytes.push(piece.length, ...piece.flat());
      }
    }
    return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  }

  decode(text) {
    const bytes = Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0)), strokes = [];
    for (let place = 1; place < bytes.length; place += 1 + 2 * bytes[place]) {
      const stroke = Array.from({ length: bytes[place] }, (_, n) => [bytes[place + 1 + 2 * n], bytes[place + 2 + 2 * n]]);
      if (!stroke.length || stroke.flat().includes(undefined)) throw new Error("The link's drawing is incomplete.");
      strokes.push(stroke);
    }
    this.set(strokes, Math.max(.4, Math.min(2.5, bytes[0] / 100)));
  }
}

/** Paint strokes with a round pen, smoothed between the middles of their segments. */
function paint(context, strokes, width, place, ink = "#000") {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round", strokeStyle: ink, fillStyle: ink });
  for (const stroke of strokes) {
    const points = stroke.map(place), last = points.at(-1);
    context.beginPath();
    context.moveTo(...points[0]);
    for (let n = 1; n + 1 < points.length; n += 1) {
      const [x, y] = points[n], [nextX, nextY] = points[n + 1];
      context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    context.lineTo(...last);
    context.stroke();
    if (points.length === 1) { context.beginPath(); context.arc(...last, width / 2, 0, 7); context.fill(); }
  }
}
