// Texts as the numbers that an ONNX file takes.

// white space as Python knows it, which is not that of JavaScript
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/u;
const PUNCTUATION = /[!-/:-@[-`{-~]|\p{P}/u;

const STEPS = "NFKC,Lowercase,Replace,WhitespaceSplit,Punctuation,Digits,Metaspace"; // of a tokenizer, see pieces

const integers = (numbers) => BigInt64Array.from(numbers, BigInt);
const split = (text) => text.split(SPACE).filter((word) => word);

const made = new WeakMap(); // what was made from a description, for the next text

function once(description, make) {
  if (!made.has(description)) made.set(description, make());
  return made.get(description);
}

/** Returns the letters (code points) of a text without white space at its ends. */
function strip(letters) {
  let [start, end] = [0, letters.length];
  while (start < end && SPACE.test(letters[start])) start++;
  while (end > start && SPACE.test(letters[end - 1])) end--;
  return letters.slice(start, end);
}

/** Returns a text without what is beyond its first (or last) characters, cut between two words if possible. */
export function readText(value, characters, side = "right") {
  if (typeof value !== "string") throw new Error("give a text");
  if (!value.isWellFormed()) throw new Error("the text is not valid Unicode");
  let letters = Array.from(value);
  if (!strip(letters).length) throw new Error("the text is empty; give at least one word");
  if (letters.length > characters) letters = strip(letters);
  if (letters.length > characters) letters = cut(letters, characters, side);
  return letters.join("");
}

function cut(letters, characters, side) {
  const right = side === "right";
  const kept = right ? letters.slice(0, characters) : letters.slice(-characters);
  const at = right ? characters - 1 : letters.length - characters - 1;
  if (SPACE.test(letters[at]) || SPACE.test(letters[at + 1])) return strip(kept); // no word is cut
  const isSpace = (letter) => SPACE.test(letter);
  const place = right ? kept.findLastIndex(isSpace) : kept.findIndex(isSpace);
  if (place < 0) return kept;
  return strip(right ? kept.slice(0, place) : kept.slice(place));
}

/** Turns a text into {tokens}, by a byte-pair encoding as this project fits it to texts. */
export function subwordInputs(description, value) {
  const { characters, max_length: most, unknown } = description;
  const length = most || Infinity;
  const { vocabulary, ranks } = once(description, () => encoding(description.tokenizer));
  const tokens = [];
  for (const piece of pieces(readText(value, characters))) {
    for (const token of merged(piece, vocabulary, ranks)) tokens.push(vocabulary.get(token) ?? unknown);
    if (tokens.length >= length) break;
  }
  const found = tokens.slice(0, length);
  if (!found.length) found.push(unknown);
  return { tokens: [integers(found), [1, found.length]] };
}

/** Reads a byte-pair encoding: the numbers of its sub-words, and when a pair was merged. */
function encoding({ model, normalizer, pre_tokenizer: splitter }) {
  const names = [...normalizer.normalizers, ...splitter.pretokenizers].map((step) => step.type).join();
  if (names !== STEPS) throw new Error(`the tokenizer's steps are ${names}, not ${STEPS}`);
  return {
    vocabulary: new Map(Object.entries(model.vocab)),
    ranks: new Map(model.merges.map(([a, b], rank) => [`${a} ${b}`, rank])),
  };
}

/** Splits a text at white space, punctuation and digits, and puts a mark before each piece. */
function* pieces(text) {
  const normal = text.normalize("NFKC").toLowerCase().replaceAll("ς", "σ");
  for (const word of normal.split(/\p{White_Space}/u)) {
    let run = "";
    for (const letter of word) {
      if (!PUNCTUATION.test(letter) && !/\p{N}/u.test(letter)) {
        run += letter;
        continue;
      }
      yield* marked(run);
      yield* marked(letter);
      run = "";
    }
    yield* marked(run);
  }
}

/** Puts the mark of a space before a piece; a mark in the text begins a piece. */
function* marked(piece) {
  if (piece) yield* (piece.startsWith("▁") ? piece : `▁${piece}`).match(/▁[^▁]*/gu);
}

/** Merges the letters of a piece: again and again the pair that was merged first when the encoding was fitted. */
function merged(piece, vocabulary, ranks) {
  let parts = Array.from(piece, (letter) => (vocabulary.has(letter) ? letter : null)); // null: unknown
  for (;;) {
    let best = Infinity;
    for (let i = 1; i < parts.length; i++) best = Math.min(best, rank(parts[i - 1], parts[i]));
    if (best === Infinity) return parts;
    const next = [];
    for (let i = 0; i < parts.length; i++) {
      const pair = i + 1 < parts.length && rank(parts[i], parts[i + 1]) === best;
      next.push(pair ? parts[i] + parts[++i] : parts[i]);
    }
    parts = next;
  }
  function rank(a, b) {
    return a === null || b === null ? Infinity : (ranks.get(`${a} ${b}`) ?? Infinity);
  }
}

/** Turns a text into {input_ids, attention_mask}, by the tokenizer of a pretrained model. */
export function tokenInputs(description, value, Tokenizer) {
  const { before, after, cut: side, verbatim } = description;
  const text = description.prompt + readText(value, description.characters, side);
  const tokenizer = once(description, () => {
    const added = description.tokenizer.added_tokens.filter((token) => !(verbatim && token.special));
    return new Tokenizer({ ...description.tokenizer, added_tokens: added }, {});
  });
  // the lower case of Σ depends on its place in the word in JavaScript alone
  const lower = /"Lowercase"|"lowercase":true/.test(JSON.stringify(description.tokenizer.normalizer));
  const { ids } = tokenizer.encode(lower ? text.replaceAll("Σ", "σ") : text, { add_special_tokens: false });
  const room = description.max_length - before.length - after.length;
  const kept = side === "right" ? ids.slice(0, room) : ids.slice(Math.max(ids.length - room, 0));
  const tokens = [...before, ...kept, ...after];
  if (!tokens.length) throw new Error("nothing of the text is left by the tokenizer; give at least one word");
  const shape = [1, tokens.length];
  return { input_ids: [integers(tokens), shape], attention_mask: [integers(tokens.map(() => 1)), shape] };
}

/** Turns a text into {terms, weights, sizes}: words and groups of letters with their weights. */
export function termInputs(description, value) {
  const number = once(description, () => new Map(description.terms.map((term, place) => [term, place])));
  const counts = new Map();
  const count = (term) => {
    const found = number.get(term);
    if (found !== undefined) counts.set(found, (counts.get(found) ?? 0) + 1);
  };
  const words = split(readText(value, description.characters).toLowerCase());
  const chunks = words.map((word) => Array.from(word).slice(0, description.chunk_characters));
  for (const [place, letters] of chunks.entries()) {
    for (const term of termsOf(letters, description)) count(term);
    if (description.word_pairs && place) count(`  ${chunks[place - 1].join("")} ${letters.join("")}`);
  }
  const numbers = [...counts.keys()].sort((a, b) => a - b);
  const raw = numbers.map((term) => (1 + Math.log(counts.get(term))) * description.idf[term]);
  const length = Math.max(Math.sqrt(raw.reduce((sum, weight) => sum + weight * weight, 0)), 1e-12);
  return bag("terms", numbers, raw.map((weight) => weight / length));
}

function* termsOf(letters, { shortest, longest }) {
  for (const word of letters.join("").match(/[\p{L}\p{N}_]{2,}/gu) ?? []) yield `  ${word}`;
  const padded = [" ", ...letters, " "];
  for (let size = shortest; size <= longest; size++) {
    const last = Math.max(padded.length - size, 0);
    for (let start = 0; start <= last; start++) yield padded.slice(start, start + size).join("");
  }
}

/** Turns a text into {words, weights, sizes}: the rows of known words with their weights. */
export function wordInputs(description, value) {
  const row = once(description, () => new Map(description.words.map((word, place) => [word, place + 1])));
  const words = readText(value, description.characters).normalize("NFC").match(/[\p{L}\p{M}\p{N}_]+/gu) ?? [];
  let found = words.map((word) => row.get(word) ?? row.get(word.toLowerCase())).filter((number) => number);
  if (!found.length) found = [0];
  const factor = (number) => description.factors?.[number] ?? 1;
  return bag("words", found, found.map((number) => factor(number) / found.length));
}

function bag(name, numbers, weights) {
  return {
    [name]: [integers(numbers), [numbers.length]],
    weights: [Float32Array.from(weights), [numbers.length]],
    sizes: [integers([numbers.length]), [1]],
  };
}
