/**
 * Converts the payloads of get_user_embedding_features and get_item_embedding_features to inputs of the towers, in the browser.
 * Counts and positions are those of the database's encoder; everything that is not linear is inside the towers.
 *
 *     import * as ort from "onnxruntime-web";
 *     import { loadModel, userFeatures } from "./two-tower.js";
 *
 *     const { data: payload } = await supabase.rpc("get_user_embedding_features", { user_id });
 *     const model = await loadModel(`https://models.example/${payload.model_version}/manifest.json`);
 *     const session = await ort.InferenceSession.create(`${model.base}/user_tower.onnx`);
 *     const input = userFeatures(payload, model);
 *     const { user_embedding } = await session.run({ user_features: new ort.Tensor("float32", input, [1, input.length]) });
 *     // user_embedding.data: Float32Array(128) of length 1; its cosine with a video's vector is the score
 *
 * The payload names the version that serves the user, which during an experiment may not be the current one: load that version, and keep it
 * as long as payloads name it.
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
 * @param {{version: string, schema: object, vocabularies: Object<string, Object<string, number>>}} model  of loadModel
 * @returns {Float32Array} of model.schema.user.dim numbers
 * @throws {Error} if the payload is for another version than the model: vectors of different versions cannot be compared
 */
export function userFeatures(payload, model) {
  if (payload.model_version !== model.version) {
    throw new Error(
      `the payload is for model ${payload.model_version}, and ${model.version} is loaded: load ${payload.model_version}/manifest.json`,
    );
  }
  checkSchema(payload, model.schema);
  // Without weights, a payload has only plain counts.
  return features(payload.weighted ?? payload, model.schema.user, model.vocabularies);
}

/**
 * One row of item_features for item_tower.onnx. A video outside the vocabulary is placed by its content.
 *
 * @param {object} payload  of get_item_embedding_features, which is the same for every model
 * @param {{schema: object, vocabularies: Object<string, Object<string, number>>}} model  of loadModel
 * @param {string} [videoId]  the video's id, which the payload does not repeat
 * @returns {Float32Array} of model.schema.item.dim numbers
 */
export function itemFeatures(payload, model, videoId) {
  checkSchema(payload, model.schema);
  return features({ ...payload, id: videoId }, model.schema.item, model.vocabularies);
}

/** Payloads contain everything that older versions of the schema need. */
function checkSchema(payload, schema) {
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

/** A value of a payload is counts by key, a list of keys, one key, or nothing. */
function counts(value) {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value)) return value.map((key) => [key, 1]);
  return typeof value === "object" ? Object.entries(value) : [[value, 1]];
}
