// How often does Vercel's AI SDK ask again, and when? One JSON line for each refusal: its code, and when it was asked.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText } from "ai";

const keys = JSON.parse(process.env.KEYS);
const twenty = { perpetuo: { n: 20 } }; // more than this gateway keeps

async function refused({ key = "acme", model = "m", prompt = "hi", first = null, ...more }) {
  const at = [];
  const counting = (...request) => (at.push(Date.now()), fetch(...request));
  const asking = (fetch) =>
    createOpenAICompatible({ name: "perpetuo", baseURL: process.env.TEST_API_BASE_URL, apiKey: keys[key] ?? key, fetch });
  if (first !== null) await generateText({ model: asking()(model), prompt: first, maxOutputTokens: 50, ...more });
  const error = await generateText({ model: asking(counting)(model), prompt, maxOutputTokens: 50, ...more }).catch((e) => e);
  const last = error.lastError ?? error;
  console.log(JSON.stringify({ code: JSON.parse(last.responseBody).error.code, status: last.statusCode, at }));
}

await Promise.all([
  refused({ key: "sk-nobody" }),
  refused({ model: "no-such" }),
  refused({ key: "narrow" }),
  refused({ key: "spent" }),
  refused({ headers: { "x-idempotency-key": "reused" }, first: "hello", prompt: "goodbye" }),
  refused({ headers: { "x-idempotency-key": "not-kept" }, first: "hi", providerOptions: twenty }),
  refused({ model: "limited" }),
  refused({ model: "broken" }),
  refused({ model: "silent" }),
]);
