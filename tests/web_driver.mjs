// node web_driver.mjs JOB NODE_MODULES: the vectors of the payloads in JOB/job.json, computed as a browser does, on standard output. Users by
// the version that each payload names, or all by job.version; videos by job.version, or the current one.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [directory, modules] = process.argv.slice(2);
const ort = await import(pathToFileURL(join(modules, "onnxruntime-web/dist/ort.node.min.mjs")));
const job = JSON.parse(await readFile(join(directory, "job.json"), "utf8"));
const web = await import(pathToFileURL(job.module));

ort.env.wasm.numThreads = 1;
const getJson = async (url) => JSON.parse(await readFile(new URL(url), "utf8"));
const once = new Map();

function remembered(key, make) {
  if (!once.has(key)) once.set(key, make());
  return once.get(key);
}

function modelOf(version) {
  return remembered(version, () => web.loadModel(pathToFileURL(join(directory, version, "manifest.json")).href, getJson));
}

async function embed(model, tower, row) {
  const session = await remembered(`${model.version} ${tower}`, async () =>
    ort.InferenceSession.create(await readFile(new URL(`${model.base}/${tower}_tower.onnx`))),
  );
  const answer = await session.run({ [`${tower}_features`]: new ort.Tensor("float32", row, [1, row.length]) });
  return Array.from(answer[`${tower}_embedding`].data);
}

const result = { versions: [], inputs: [], users: [], videos: [] };
for (const payload of job.users) {
  const model = await modelOf(job.version ?? payload.model_version);
  const input = web.userFeatures(payload, model);
  result.versions.push(model.version);
  result.inputs.push(Array.from(input));
  result.users.push(await embed(model, "user", input));
}
for (const [id, payload] of job.videos) {
  const model = await modelOf(job.version ?? "current");
  result.videos.push(await embed(model, "item", web.itemFeatures(payload, model, id)));
}
process.stdout.write(JSON.stringify(result));
