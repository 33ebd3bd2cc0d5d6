// What applications do with Vercel's AI SDK, one JSON line for each case: its name, and the error or null.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embed, embedMany, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const provider = createOpenAICompatible({
  name: "perpetuo",
  baseURL: process.env.TEST_API_BASE_URL,
  apiKey: "My API Key",
  includeUsage: true,
  headers: { "x-application": "cases" },
  queryParams: { "api-version": "2026-01-01" },
});
const model = provider("gpt-4o-mini");
const prompt = "Say hello.";
const maxRetries = 0;
const weather = () =>
  tool({
    description: "The weather in a city",
    inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
    execute: async ({ city }) => `Sunny in ${city}`,
  });

async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

const cases = {
  "text": async () => {
    const answer = await generateText({ model, prompt, maxRetries });
    assert.match(answer.text, /\w/);
    assert.equal(answer.finishReason, "stop");
    assert.ok(answer.usage.inputTokens > 0 && answer.usage.outputTokens > 0);
  },
  "a conversation, with settings and members of the provider's own": async () => {
    const messages = [
      { role: "system", content: "Be short." },
      { role: "user", content: [{ type: "text", text: "Hi." }] },
      { role: "assistant", content: "Hello." },
      { role: "user", content: prompt },
    ];
    const settings = { temperature: 0.5, topP: 0.9, maxOutputTokens: 50, seed: 7, stopSequences: ["###"] };
    const own = { perpetuo: { user: "someone", reasoningEffort: "low", grammar: "root ::= x" } };
    const answer = await generateText({ model, messages, ...settings, providerOptions: own, maxRetries });
    assert.match(answer.text, /\w/);
  },
  "a stream, with usage at its end": async () => {
    const stream = streamText({ model, prompt, maxRetries });
    const kinds = (await all(stream.fullStream)).map((part) => part.type);
    assert.equal(kinds[0], "start");
    assert.equal(kinds.at(-1), "finish");
    assert.ok(kinds.includes("text-delta") && !kinds.includes("error"));
    assert.match(await stream.text, /\w/);
    assert.ok((await stream.usage).outputTokens > 0);
    assert.equal(await stream.finishReason, "stop");
  },
  "a stream says what the answer says": async () => {
    const plain = await generateText({ model, prompt, maxRetries });
    const text = (await all(streamText({ model, prompt, maxRetries }).textStream)).join("");
    assert.equal(text, plain.text);
  },
  "a stream that is left": async () => {
    const leaving = new AbortController();
    const stream = streamText({ model, prompt, maxRetries, abortSignal: leaving.signal, onError: () => {} });
    const kinds = [];
    for await (const part of stream.fullStream) {
      kinds.push(part.type);
      if (part.type === "text-delta") leaving.abort();
    }
    assert.ok(kinds.includes("abort"));
    assert.match((await generateText({ model, prompt, maxRetries })).text, /\w/);
  },
  "a tool is called": async () => {
    const answer = await generateText({ model, prompt: "Weather in Rome?", tools: { weather: weather() }, maxRetries });
    assert.equal(answer.finishReason, "tool-calls");
    assert.equal(answer.toolCalls[0].toolName, "weather");
    assert.match(answer.toolResults[0].output, /^Sunny in /);
  },
  "a tool is called in a stream": async () => {
    const stream = streamText({ model, prompt: "Weather in Rome?", tools: { weather: weather() }, maxRetries });
    const calls = (await all(stream.fullStream)).filter((part) => part.type === "tool-call");
    assert.deepEqual(calls.map((call) => call.toolName), ["weather"]);
  },
  "a loop of tools ends in an answer": async () => {
    const tools = { weather: weather() };
    const answer = await generateText({ model, prompt: "Weather?", tools, stopWhen: stepCountIs(3), maxRetries });
    assert.ok(answer.steps.length > 1);
  },
  "an object": async () => {
    const schema = jsonSchema({ type: "object", properties: { message: { type: "string" } }, required: ["message"] });
    const answer = await generateText({ model, prompt, output: Output.object({ schema }), maxRetries });
    assert.equal(typeof answer.output.message, "string");
  },
  "an embedding, and several": async () => {
    const embedder = provider.embeddingModel("text-embedding-3-small");
    assert.equal((await embed({ model: embedder, value: "a", maxRetries })).embedding.length, 1536);
    const many = await embedMany({ model: embedder, values: ["a", "b", "c"], maxRetries });
    assert.equal(many.embeddings.length, 3);
  },
  "twenty calls at once": async () => {
    const many = Array.from({ length: 20 }, () => generateText({ model, prompt, maxRetries }));
    for (const answer of await Promise.all(many)) assert.match(answer.text, /\w/);
  },
};

for (const [name, run] of Object.entries(cases)) {
  const error = await run().then(() => null, (error) => String(error?.stack ?? error));
  console.log(JSON.stringify({ name, error }));
}
