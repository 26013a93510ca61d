// node web_driver.mjs JOB NODE_MODULES: the vectors of the payloads in JOB/job.json, computed as a browser does, on standard output.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [directory, modules] = process.argv.slice(2);
const ort = await import(pathToFileURL(join(modules, "onnxruntime-web/dist/ort.node.min.mjs")));
const job = JSON.parse(await readFile(join(directory, "job.json"), "utf8"));
const web = await import(pathToFileURL(job.module));

ort.env.wasm.numThreads = 1;
const getJson = async (url) => JSON.parse(await readFile(new URL(url), "utf8"));
const model = await web.loadModel(pathToFileURL(join(directory, "current/manifest.json")).href, getJson);

async function embed(tower, rows) {
  const session = await ort.InferenceSession.create(await readFile(new URL(`${model.base}/${tower}_tower.onnx`)));
  const vectors = [];
  for (const row of rows) {
    const answer = await session.run({ [`${tower}_features`]: new ort.Tensor("float32", row, [1, row.length]) });
    vectors.push(Array.from(answer[`${tower}_embedding`].data));
  }
  return vectors;
}

const users = job.users.map((payload) => web.userFeatures(payload, model.schema, model.vocabularies));
const videos = job.videos.map(([id, payload]) => web.itemFeatures(payload, model.schema, model.vocabularies, id));
const result = {
  version: model.version,
  inputs: users.map((row) => Array.from(row)),
  users: await embed("user", users),
  videos: await embed("item", videos),
};
process.stdout.write(JSON.stringify(result));
