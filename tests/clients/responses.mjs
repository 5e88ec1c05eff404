// Makes responses, streams them, goes on from them, reads and deletes them.
//
//     node responses.mjs URL KEY
//
// URL is an Azure OpenAI resource or a gateway that claims to be like one: what is printed, a JSON object
// a client, must be the same for both. The SDK is looked for in the folder that TOLLGATE_TEST_NODE_MODULES
// names.

import { createRequire } from "node:module";
import { join } from "node:path";

const modules = process.env.TOLLGATE_TEST_NODE_MODULES;
if (!modules) throw new Error("TOLLGATE_TEST_NODE_MODULES must name a node_modules folder with openai in it");
const { default: OpenAI, AzureOpenAI, NotFoundError } = createRequire(join(modules, "from-here.js"))("openai");

const [url, apiKey] = process.argv.slice(2);
const model = "gpt-4o-mini";

const clients = {
  AzureOpenAI: new AzureOpenAI({ endpoint: url, apiKey, apiVersion: "2025-04-01-preview", maxRetries: 0 }),
  OpenAI: new OpenAI({ baseURL: `${url}/openai/v1`, apiKey, maxRetries: 0 }),
};

for (const [name, client] of Object.entries(clients)) {
  const first = await client.responses.create({ model, input: "Say hello." });
  const events = [];
  let streamed;
  const stream = await client.responses.create({
    model,
    input: "And once more.",
    previous_response_id: first.id,
    stream: true,
  });
  for await (const event of stream) {
    events.push(event.type);
    if (event.type === "response.completed") streamed = event.response;
  }
  const read = await client.responses.retrieve(streamed.id);
  const items = await client.responses.inputItems.list(first.id);
  await client.responses.delete(first.id);
  let gone = false;
  try {
    await client.responses.retrieve(first.id);
  } catch (error) {
    if (!(error instanceof NotFoundError)) throw error;
    gone = true;
  }
  const told = [first, streamed, read].map((response) => [response.output_text ?? null, response.usage]);
  const input = items.data.map((item) => item.content);
  console.log(JSON.stringify({ client: name, told, input, events, goesOn: read.previous_response_id === first.id, gone }));
}
