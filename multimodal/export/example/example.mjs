// Turns texts, pictures and lists of numbers into vectors with the ONNX files in this folder, by Node 20 or newer.
//
//   npm install
//   node example.mjs --text "a red cup"
//
// preprocessing.json says for each modality how a value becomes the inputs of its ONNX file.

import { realpathSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import * as ort from "onnxruntime-web";
import { pictureInputs } from "./pictures.mjs";
import { subwordInputs, termInputs, tokenInputs, wordInputs } from "./texts.mjs";

const FOLDER = new URL(".", import.meta.url);
export const KINDS = {
  picture: readPicture,
  subwords: subwordInputs,
  tokens: readTokens,
  terms: termInputs,
  words: wordInputs,
  numbers: numberInputs,
};

ort.env.wasm.numThreads = 1;

/**
 * Returns the vector of a value, of unit length.
 *
 * @param {string} modality a modality in preprocessing.json
 * @param {string | number[]} value a text, the path of a picture, or a list of numbers
 * @returns {Promise<Float32Array>}
 */
export async function embed(modality, value) {
  const { description, session } = await load(modality);
  const inputs = await KINDS[description.kind](description, value);
  const feeds = session.inputNames.map((name) => [name, tensor(...inputs[name])]);
  const { vectors } = await session.run(Object.fromEntries(feeds));
  return vectors.data;
}

const loaded = new Map(); // of the modalities that were asked for

async function load(modality) {
  if (loaded.has(modality)) return loaded.get(modality);
  const found = JSON.parse(await readFile(new URL("preprocessing.json", FOLDER), "utf8"));
  if (Object.hasOwn(found.not_covered, modality)) {
    throw new Error(`this example cannot read ${modality}: ${found.not_covered[modality]}`);
  }
  if (!Object.hasOwn(found.modalities, modality)) {
    throw new Error(`there is no modality ${modality}; there is ${Object.keys(found.modalities).join(", ") || "none"}`);
  }
  const description = found.modalities[modality];
  const session = await ort.InferenceSession.create(await readFile(new URL(description.file, FOLDER)));
  loaded.set(modality, { description, session });
  return { description, session };
}

function tensor(data, shape) {
  const type = { BigInt64Array: "int64", Uint8Array: "uint8", Float32Array: "float32" }[data.constructor.name];
  return new ort.Tensor(type, data, shape);
}

let vips; // one for all pictures, as it starts threads

async function readPicture(description, path) {
  const { default: Vips } = await import("wasm-vips");
  vips ??= await Vips({ dynamicLibraries: [] }); // without the decoders of SVG, HEIF and JPEG XL
  const bytes = new Uint8Array(await readFile(path));
  try {
    return pictureInputs(description, bytes, vips);
  } catch (error) {
    throw error instanceof Error ? error : new Error(`${path} is not a picture that can be read`);
  }
}

async function readTokens(description, text) {
  const { Tokenizer } = await import("@huggingface/tokenizers");
  return tokenInputs(description, text, Tokenizer);
}

function numberInputs(description, value) {
  const numbers = typeof value === "string" ? JSON.parse(value) : Array.from(value);
  const { width, scale, mean, deviation } = description;
  let vector = Float32Array.from(numbers);
  if (numbers.length !== width || !vector.every(Number.isFinite)) {
    throw new Error(`give a list of ${width} finite numbers`);
  }
  if (scale === "standard") vector = vector.map((x, i) => (x - mean[i]) / deviation[i]);
  if (scale === "length") {
    const length = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
    if (!length) throw new Error("the vector is zero, so it has no direction");
    vector = vector.map((x) => x * (Math.sqrt(width) / length));
  }
  return { numbers: [vector, [1, width]] };
}

async function main(names) {
  if (names.length !== 2 || !names[0].startsWith("--")) {
    console.error('Usage: node example.mjs --MODALITY VALUE, such as --text "a red cup" or --image cup.png');
    process.exit(2);
  }
  try {
    console.log(JSON.stringify(Array.from(await embed(names[0].slice(2), names[1]))));
  } catch (error) {
    console.error(`Error: ${error.message}`);
    process.exitCode = 1;
  }
}

const started = process.argv[1] && pathToFileURL(realpathSync(process.argv[1])).href; // the program, or one that imports it
if (import.meta.url === started) await main(process.argv.slice(2));
