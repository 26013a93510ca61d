// node rpc_driver.mjs JOB NODE_MODULES: calls of RPCs by supabase-js as npm has it. JOB is a file {url, tokens, calls: [[role, name, arguments]],
// at_once};
// the answers, {status, code, data} each, come on standard output in the same order.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const [path, modules] = process.argv.slice(2);
const { createClient } = createRequire(join(modules, "index.js"))("@supabase/supabase-js");
const { url, tokens, calls, at_once } = JSON.parse(await readFile(path, "utf8"));
const clients = Object.fromEntries(
  Object.entries(tokens).map(([role, token]) => [role, createClient(url, tokens.anon, { accessToken: async () => token })]),
);

async function answer([role, name, given], tries = 6) {
  const { data, error, status } = await clients[role].rpc(name, given);
  // What a backend loads at its first call may take a busy machine longer than the role's statement_timeout.
  if (error?.code === "57014" && tries > 1) return answer([role, name, given], tries - 1);
  return { status, code: error?.code ?? null, message: error?.message ?? null, data };
}

const answers = new Array(calls.length);
let next = 0;
async function work() {
  while (next < calls.length) {
    const at = next++;
    answers[at] = await answer(calls[at]);
  }
}
await Promise.all(Array.from({ length: at_once }, work));
process.stdout.write(JSON.stringify(answers));
