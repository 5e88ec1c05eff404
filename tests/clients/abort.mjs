// Streams a chat, and hangs up midway.
//
//     node abort.mjs URL KEY
//
// The SDK is looked for in the folder that TOLLGATE_TEST_NODE_MODULES names. One JSON object tells
// what came before the client hung up; it is written as soon as it has.

import { createRequire } from "node:module";
import { join } from "node:path";

const modules = process.env.TOLLGATE_TEST_NODE_MODULES;
if (!modules) throw new Error("TOLLGATE_TEST_NODE_MODULES must name a node_modules folder with openai in it");
const { default: OpenAI, AzureOpenAI, APIUserAbortError } = createRequire(join(modules, "from-here.js"))("openai");

const [url, apiKey] = process.argv.slice(2);
const CHUNKS = 5;

const clients = {
  AzureOpenAI: new AzureOpenAI({ endpoint: url, apiKey, apiVersion: "2024-10-21", maxRetries: 0 }),
  OpenAI: new OpenAI({ baseURL: `${url}/openai/v1`, apiKey, maxRetries: 0 }),
};

for (const [name, client] of Object.entries(clients)) {
  const stream = await client.chat.completions.create({
    model: "gpt-4o-mini",
    messages: [{ role: "user", content: `A long story for ${name}.` }],
    stream: true,
  });
  let chunks = 0;
  try {
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) chunks += 1;
      if (chunks === CHUNKS) stream.controller.abort();
    }
  } catch (error) {
    if (!(error instanceof APIUserAbortError)) throw error;
  }
  console.log(JSON.stringify({ client: name, chunks }));
}
