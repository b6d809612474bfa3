// OpenAI's own Node library against a running server: node node_client.mjs URL KIND
// Prints one JSON value for node_cases.py. KIND: "tiny" or "forms:N" (N answers of a script).
import { createRequire } from 'node:module';
const require = createRequire(process.env.NODE_FOLDER + '/');
const OpenAI = require('openai').default;

const [url, kind] = process.argv.slice(2);
const api = new OpenAI({ baseURL: url + '/v1', apiKey: 'none', maxRetries: 0 });
const hi = [{ role: 'user', content: 'Hi' }];
const tools = ['f', 'g'].map((name) => ({ type: 'function', function: { name } }));

// A streamed answer put together by the library itself.
async function streamed(ask) {
  const stream = api.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
  let reasoning = '';
  for await (const chunk of stream) reasoning += chunk.choices[0]?.delta?.reasoning_content ?? '';
  return { ...message(await stream.finalChatCompletion()), reasoning };
}

function message(answer) {
  const { message: m, finish_reason } = answer.choices[0];
  const calls = (m.tool_calls ?? []).map((t) => [t.function.name, t.function.arguments]);
  return { content: m.content ?? '', reasoning: m.reasoning_content ?? '', calls, finish: finish_reason };
}

async function forms(n) {
  const out = [];
  for (let i = 0; i < n; i++) {
    const ask = { model: 'tiny', messages: hi, tools };
    out.push([message(await api.chat.completions.create(ask)), await streamed(ask)]);
  }
  return out;
}

// The Responses interface: whole, streamed, stored, chained, deleted.
async function responses() {
  const ask = { model: 'tiny', input: 'What is 12 + 30?', seed: 5 };
  const one = await api.responses.create(ask);
  const stream = api.responses.stream(ask);
  const types = new Set();
  for await (const event of stream) types.add(event.type);
  const two = await stream.finalResponse();
  const next = await api.responses.create({ model: 'tiny', input: 'And plus 1?', previous_response_id: one.id });
  const got = await api.responses.retrieve(one.id);
  const items = [];
  for await (const item of api.responses.inputItems.list(one.id)) items.push(item.type);
  await api.responses.delete(one.id);
  const gone = await api.responses.retrieve(one.id).catch((e) => e.status);
  return { texts: [one.output_text, two.output_text, got.output_text], types: [...types], items, gone, next: next.status };
}

async function tiny() {
  const ask = { model: 'tiny', messages: [{ role: 'user', content: 'What is 12 + 30?' }], seed: 5, max_tokens: 200 };
  const models = [];
  for await (const m of api.models.list()) models.push(m.id);
  const error = await api.chat.completions.create({ ...ask, temperature: 3 }).catch((e) => e);
  const completion = await api.completions.create({ model: 'tiny', prompt: 'Hello', max_tokens: 5, seed: 1 });
  let text = '';
  for await (const c of await api.completions.create({ model: 'tiny', prompt: 'Hello', max_tokens: 5, seed: 1, stream: true }))
    text += c.choices[0].text;
  return {
    models,
    whole: message(await api.chat.completions.create(ask)),
    streamed: await streamed(ask),
    error: { name: error.constructor.name, status: error.status, param: error.param, id: error.requestID },
    responses: await responses(),
    completion: [completion.choices[0].text, text],
  };
}

const result = kind === 'tiny' ? await tiny() : await forms(Number(kind.split(':')[1]));
console.log(JSON.stringify(result));
