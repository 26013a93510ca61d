/**
 * From the payloads of get_user_embedding_features and get_item_embedding_features to the inputs of the towers, in the browser.
 * The same counts at the same positions as the database's encoder has them; all that is not linear is inside the towers.
 *
 *     import * as ort from "onnxruntime-web";
 *     import { loadModel, userFeatures } from "./two-tower.js";
 *
 *     const model = await loadModel("https://models.example/current/manifest.json");
 *     const session = await ort.InferenceSession.create(`${model.base}/user_tower.onnx`);
 *     const input = userFeatures(payload, model.schema, model.vocabularies);
 *     const { user_embedding } = await session.run({ user_features: new ort.Tensor("float32", input, [1, input.length]) });
 *     // user_embedding.data: Float32Array(128) of length 1; its cosine with a video's vector is the score
 *
 * No dependencies, no build step.
 */

/**
 * What userFeatures and itemFeatures need of a published model, from its manifest.
 *
 * @param {string} manifestUrl  URL/current/manifest.json, or URL/VERSION/manifest.json
 * @param {(url: string) => Promise<any>} [getJson]  how to read JSON from a URL
 * @returns {Promise<{version: string, base: string, schema: object, vocabularies: Object<string, Object<string, number>>}>}
 *     base is the URL of the version's directory, where user_tower.onnx is
 */
export async function loadModel(manifestUrl, getJson = fetchJson) {
  const manifest = await getJson(manifestUrl);
  const base = new URL(`../${manifest.version}`, manifestUrl).href;
  const schema = await getJson(`${base}/feature_schema.json`);
  const segments = [...schema.user.segments, ...schema.item.segments];
  const names = [...new Set(segments.map((segment) => segment.vocabulary).filter((name) => name !== null))];
  const loaded = await Promise.all(names.map((name) => getJson(`${base}/vocab_${name}.json`)));
  return { version: manifest.version, base, schema, vocabularies: Object.fromEntries(names.map((name, at) => [name, loaded[at]])) };
}

async function fetchJson(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return response.json();
}

/**
 * One row of user_features for user_tower.onnx.
 *
 * @param {object} payload  of get_user_embedding_features
 * @param {object} schema  feature_schema.json
 * @param {Object<string, Object<string, number>>} vocabularies  by name, such as tag: the content of vocab_tag.json
 * @returns {Float32Array} of schema.user.dim numbers
 */
export function userFeatures(payload, schema, vocabularies) {
  const recency = schema.user.recency ?? 0;
  // Plain counts are what a model without recency reads, unless decisions have weights of their own.
  const plain = recency === 0 && payload.weights === undefined;
  if (!plain && (payload.recency ?? 0) !== recency) {
    throw new Error(`the payload weighs decisions by ${payload.recency ?? 0}, the model by ${recency}: load the model anew`);
  }
  checkVersion(payload, schema);
  return features(plain ? payload : payload.weighted, schema.user, vocabularies);
}

/**
 * One row of item_features for item_tower.onnx. A video outside the vocabulary is placed by its content.
 *
 * @param {object} payload  of get_item_embedding_features
 * @param {object} schema  feature_schema.json
 * @param {Object<string, Object<string, number>>} vocabularies  by name
 * @param {string} [videoId]  the video's id, which the payload does not repeat
 * @returns {Float32Array} of schema.item.dim numbers
 */
export function itemFeatures(payload, schema, vocabularies, videoId) {
  checkVersion(payload, schema);
  return features({ ...payload, id: videoId }, schema.item, vocabularies);
}

/** What an older version of the schema has, a payload has, too. */
function checkVersion(payload, schema) {
  if (!(payload.schema_version >= schema.schema_version)) {
    throw new Error(`the payload has schema version ${payload.schema_version}, the model ${schema.schema_version}`);
  }
}

function features(payload, side, vocabularies) {
  const row = new Float32Array(side.dim);
  for (const { name, offset, vocabulary } of side.segments) {
    if (vocabulary === null) {
      side.numeric.forEach((field, at) => (row[offset + at] = payload[field] ?? 0));
      continue;
    }
    const indexes = vocabularies[vocabulary];
    if (indexes === undefined) throw new Error(`the vocabulary ${vocabulary} is missing`);
    for (const [key, count] of counts(payload[name])) {
      // hasOwn: a maker may be called "constructor".
      if (Object.hasOwn(indexes, key)) row[offset + indexes[key]] += count;
    }
  }
  return row;
}

/** A payload holds counts by key, a list of keys, one key, or nothing. */
function counts(value) {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value)) return value.map((key) => [key, 1]);
  return typeof value === "object" ? Object.entries(value) : [[value, 1]];
}
