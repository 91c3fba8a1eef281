// Pictures as the pixels that an ONNX file takes: decoded by libvips, the rest as the library Pillow computes it.

const MOST_PIXELS = 89478485; // Pillow's limit of a picture

// The kernels of Pillow's Resample.c, by name: half of their width, and their value at x.
const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(1 - Math.abs(x), 0)],
  hamming: [1, (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(x * Math.PI)))],
  bicubic: [2, bicubic],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

function bicubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/** Turns the bytes of an image file into {pixels: [Uint8Array, [1, channels, height, width]]}. */
export function pictureInputs(description, bytes, vips) {
  let picture = decode(description, bytes, vips);
  for (const step of description.steps) picture = STEPS[step.step](picture, step, description);
  return { pixels: [planes(picture), [1, picture.channels, picture.height, picture.width]] };
}

/** Decodes a file: {width, height, channels, data}, upright, without transparency, in the description's mode. */
function decode(description, bytes, vips) {
  const { mode, jpeg_edge: edge, background } = description;
  const grey = mode === "L";
  let jpeg = isJpeg(bytes) ? readJpeg(bytes) : null;
  let options = "fail_on=truncated";
  if (jpeg && edge !== null && 2 * edge < Math.max(jpeg.width, jpeg.height)) {
    const shrink = jpegShrink(jpeg, edge);
    bytes = preparedJpeg(bytes, jpeg, shrink, grey);
    options += `,shrink=${shrink}`;
  } else {
    jpeg = null;
  }
  const image = vips.Image.newFromBuffer(bytes, `[${options}]`);
  const { width, height, bands, format, interpretation } = image;
  if (width * height > MOST_PIXELS) throw new Error(`the picture has more than ${MOST_PIXELS} pixels`);
  const known = ["srgb", "rgb16", "b-w", "grey16"].includes(interpretation) && ["uchar", "ushort"].includes(format);
  if (!known) throw new Error(`pictures of type ${interpretation} (${format}) are not read; give RGB or grey`);
  const orientation = image.getTypeof("orientation") ? image.getInt("orientation") : 1;
  const raw = image.writeToMemory();
  image.delete();
  let data = raw;
  if (format === "ushort") {
    const isGrey = bands === 1 || (isPng(bytes) && bytes[25] === 0); // the type of colour in a PNG's header
    data = Uint8Array.from(raw, (word) => (isGrey ? Math.floor(word / 257) : word >> 8));
  }
  let picture = turned({ width, height, channels: bands, data }, orientation);
  if (bands === 2 || bands === 4) picture = flattened(picture, background);
  if (jpeg && grey && jpeg.luma) return channel(picture, 0);
  return grey ? toGrey(picture) : toColour(picture);
}

const isPng = (bytes) => bytes.length > 25 && bytes[0] === 0x89 && bytes[1] === 0x50;
const isJpeg = (bytes) => bytes[0] === 0xff && bytes[1] === 0xd8;

/** Walks through the segments of a JPEG's header: its size, whether its first component is luma, and the segments. */
function readJpeg(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const segments = [];
  let jfif = false;
  let adobe = null;
  for (let at = 2; at + 4 <= bytes.length; ) {
    if (bytes[at] !== 0xff) break;
    if (bytes[at + 1] === 0xff) {
      at += 1; // fill
      continue;
    }
    const marker = bytes[at + 1];
    const end = at + 2 + view.getUint16(at + 2);
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 9));
    if (marker === 0xe0 && name === "JFIF\0") jfif = true;
    if (marker === 0xee && name === "Adobe") adobe = bytes[at + 15];
    segments.push({ marker, start: at, end });
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      const components = bytes[at + 9];
      const ids = [0, 1, 2].map((n) => bytes[at + 10 + 3 * n]).join();
      const colours = adobe === null ? ids !== "82,71,66" : adobe !== 0; // "RGB" as the names of the components
      const luma = components === 3 && (jfif || colours);
      return { height: view.getUint16(at + 5), width: view.getUint16(at + 7), components, luma, segments };
    }
    at = end;
  }
  throw new Error("the JPEG is damaged");
}

/** By how much a JPEG is decoded smaller: as far as its longer edge is still twice the one that is needed. */
function jpegShrink({ width, height }, edge) {
  const scale = (2 * edge) / Math.max(width, height);
  const most = Math.min(...[width, height].map((size) => Math.floor(size / Math.max(1, Math.floor(size * scale)))));
  return [8, 4, 2, 1].find((shrink) => shrink <= most) ?? 1;
}

/**
 * Changes a JPEG's header. Its size becomes a multiple of the shrink, as libvips would cut what is left over. For a grey
 * picture its colours are said to be RGB, so that they are not converted, and the first channel is the luma.
 */
function preparedJpeg(bytes, jpeg, shrink, grey) {
  const parts = [bytes.subarray(0, 2)];
  if (grey && jpeg.luma) {
    parts.push(Uint8Array.of(0xff, 0xee, 0, 14, 0x41, 0x64, 0x6f, 0x62, 0x65, 0, 100, 0, 0, 0, 0, 0)); // Adobe, RGB
  }
  for (const { marker, start, end } of jpeg.segments) {
    if (grey && jpeg.luma && (marker === 0xe0 || marker === 0xee)) continue;
    const segment = bytes.slice(start, end);
    if (start === jpeg.segments.at(-1).start) {
      const view = new DataView(segment.buffer);
      view.setUint16(5, Math.min(Math.ceil(jpeg.height / shrink) * shrink, 65535));
      view.setUint16(7, Math.min(Math.ceil(jpeg.width / shrink) * shrink, 65535));
    }
    parts.push(segment);
  }
  parts.push(bytes.subarray(jpeg.segments.at(-1).end));
  const changed = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    changed.set(part, at);
    at += part.length;
  }
  return changed;
}

/** Makes a picture of another size, whose pixel (x, y) is that at place(x, y) of the given one. */
function moved(picture, width, height, place) {
  const { channels } = picture;
  const data = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [from, to] = [place(x, y) * channels, (y * width + x) * channels];
      for (let c = 0; c < channels; c++) data[to + c] = picture.data[from + c];
    }
  }
  return { width, height, channels, data };
}

/** Turns a picture as its EXIF orientation says. */
function turned(picture, orientation) {
  if (!(orientation >= 2 && orientation <= 8)) return picture;
  const { width, height } = picture;
  const swapped = orientation >= 5;
  const flipX = [2, 3, 7, 8].includes(orientation);
  const flipY = [3, 4, 6, 7].includes(orientation);
  return moved(picture, swapped ? height : width, swapped ? width : height, (x, y) => {
    let [u, v] = swapped ? [y, x] : [x, y];
    if (flipX) u = width - 1 - u;
    if (flipY) v = height - 1 - v;
    return v * width + u;
  });
}

function channel(picture, number) {
  const { width, height, channels } = picture;
  const data = new Uint8Array(width * height);
  for (let i = 0; i < data.length; i++) data[i] = picture.data[i * channels + number];
  return { width, height, channels: 1, data };
}

function luma(r, g, b) {
  return (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
}

function toGrey(picture) {
  if (picture.channels === 1) return picture;
  const { width, height, data: from } = picture;
  const data = new Uint8Array(width * height);
  for (let i = 0; i < data.length; i++) data[i] = luma(from[3 * i], from[3 * i + 1], from[3 * i + 2]);
  return { width, height, channels: 1, data };
}

function toColour(picture) {
  if (picture.channels === 3) return picture;
  const data = new Uint8Array(picture.data.length * 3);
  for (let i = 0; i < data.length; i++) data[i] = picture.data[Math.floor(i / 3)];
  return { ...picture, channels: 3, data };
}

/** Lays a picture with transparency on a background colour, in the whole numbers of Pillow's AlphaComposite.c. */
function flattened(picture, background) {
  const { width, height, channels, data: from } = picture;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    const alpha = from[i * channels + channels - 1];
    const share = Math.floor((alpha * 255 * 255 * 128) / (alpha * 255 + 255 * (255 - alpha)));
    for (let c = 0; c < 3; c++) {
      const colour = from[i * channels + (channels === 4 ? c : 0)];
      const mixed = colour * share + background[c] * (255 * 128 - share) + (0x80 << 7);
      data[3 * i + c] = alpha === 0 ? background[c] : (((mixed >> 8) + mixed) >> 8) >> 7;
    }
  }
  return { width, height, channels: 3, data };
}

/** Returns for each pixel of the result the first pixel of the source that it depends on, and the weights. */
function weights(from, to, [support, kernel]) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const last = Math.min(Math.trunc(centre + reach + 0.5), from);
    const values = [];
    for (let x = first; x < last; x++) values.push(kernel((x - centre + 0.5) * (1 / stretch)));
    const sum = values.reduce((a, b) => a + b, 0);
    // in units of 2^-22, as Pillow computes with whole numbers
    return [first, Int32Array.from(values, (w) => Math.trunc((sum ? w / sum : w) * 2 ** 22 + (w < 0 ? -0.5 : 0.5)))];
  });
}

function clipped(sum) {
  const value = sum >> 22;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

/** Resizes a picture with antialiasing to the same bytes as Pillow 13, which begins with the columns of a tall one. */
export function resized(picture, width, height, filter) {
  if (!Object.hasOwn(FILTERS, filter)) throw new Error(`there is no filter ${filter}`);
  const [lessWide, lessHigh] = [picture.width - width, picture.height - height];
  const rows = (given) => (lessWide ? resizedRows(given, width, FILTERS[filter]) : given);
  const columns = (given) => (lessHigh ? resizedColumns(given, height, FILTERS[filter]) : given);
  return lessHigh > 0 && lessHigh > 2 * lessWide ? rows(columns(picture)) : columns(rows(picture));
}

function resizedRows({ width: from, height, channels, data }, width, filter) {
  const made = new Uint8Array(width * height * channels);
  weights(from, width, filter).forEach(([first, row], x) => {
    for (let y = 0; y < height; y++) {
      for (let c = 0; c < channels; c++) {
        let sum = 1 << 21;
        for (let k = 0; k < row.length; k++) sum += data[(y * from + first + k) * channels + c] * row[k];
        made[(y * width + x) * channels + c] = clipped(sum);
      }
    }
  });
  return { width, height, channels, data: made };
}

function resizedColumns({ width, height: from, channels, data }, height, filter) {
  const length = width * channels;
  const made = new Uint8Array(length * height);
  weights(from, height, filter).forEach(([first, column], y) => {
    for (let i = 0; i < length; i++) {
      let sum = 1 << 21;
      for (let k = 0; k < column.length; k++) sum += data[(first + k) * length + i] * column[k];
      made[y * length + i] = clipped(sum);
    }
  });
  return { width, height, channels, data: made };
}

/** Takes a part of a picture; what lies outside of it gets a colour (of one number for each channel). */
function part(picture, left, top, width, height, colour) {
  const { channels } = picture;
  const data = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [u, v] = [x + left, y + top];
      const inside = u >= 0 && u < picture.width && v >= 0 && v < picture.height;
      for (let c = 0; c < channels; c++) {
        data[(y * width + x) * channels + c] = inside ? picture.data[(v * picture.width + u) * channels + c] : colour[c];
      }
    }
  }
  return { width, height, channels, data };
}

/** Rounds as Python does: a half to the even number. */
function round(x) {
  const rounded = Math.round(x);
  return Math.abs(x % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

const STEPS = {
  limit_aspect_ratio(picture, { ratio }) {
    const shorter = Math.min(picture.width, picture.height);
    const [width, height] = [picture.width, picture.height].map((edge) => Math.min(edge, ratio * shorter));
    const [left, top] = [picture.width - width, picture.height - height].map((rest) => Math.floor(rest / 2));
    return part(picture, left, top, width, height, []);
  },
  resize_longer(picture, { edge, filter }) {
    const scale = edge / Math.max(picture.width, picture.height);
    const [width, height] = [picture.width, picture.height].map((size) => Math.max(round(size * scale), 1));
    return resized(picture, width, height, filter);
  },
  resize_shorter(picture, { edge, filter }) {
    const { width, height } = picture;
    const longer = Math.trunc((edge * Math.max(width, height)) / Math.min(width, height));
    return width <= height ? resized(picture, edge, longer, filter) : resized(picture, longer, edge, filter);
  },
  resize(picture, { width, height, filter }) {
    return resized(picture, width, height, filter);
  },
  pad(picture, { width, height }, { background }) {
    const [left, top] = [width - picture.width, height - picture.height].map((rest) => Math.floor(rest / 2));
    return part(picture, -left, -top, width, height, picture.channels === 1 ? [luma(...background)] : background);
  },
  crop(picture, { width, height }) {
    // where the picture is smaller, the rest is black: first an equal border, then the middle
    const [left, top] = [
      [picture.width, width],
      [picture.height, height],
    ].map(([from, to]) => (from < to ? -Math.floor((to - from) / 2) : round((from - to) / 2)));
    return part(picture, left, top, width, height, [0, 0, 0]);
  },
};

/** Puts the channels one after another. */
function planes({ width, height, channels, data }) {
  const found = new Uint8Array(data.length);
  const area = width * height;
  for (let i = 0; i < area; i++) for (let c = 0; c < channels; c++) found[c * area + i] = data[i * channels + c];
  return found;
}
