// A try-on by Node.js 18 or later, with its progress: node tryon.mjs PERSON GARMENT RESULT [MASK]
import { randomUUID } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { extname } from "node:path";

const server = process.env.DRESSFORM_URL ?? "http://127.0.0.1:8000";
const types = { ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp" };
const picture = async (path) =>
  `data:${types[extname(path).toLowerCase()]};base64,${(await readFile(path)).toString("base64")}`;
const post = (path, body) =>
  fetch(`${server}/v2/models/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

// Each step, as it is made. A request can be watched from before it arrives; the stream ends with it.
async function watch(id) {
  const response = await post("watch/generate_stream", { id });
  let text = "";
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    const messages = (text + chunk).split("\n\n");
    text = messages.pop();
    for (const message of messages) {
      const { event } = JSON.parse(message.slice("data: ".length));
      if (event === undefined) continue;
      const { state, step, total } = JSON.parse(event);
      console.error(`${state} ${step}/${total}`);
    }
  }
}

const [person, garment, result, mask] = process.argv.slice(2);
const id = randomUUID();
const body = { id, person: await picture(person), garment: await picture(garment), num_inference_steps: 10, seed: 7 };
if (mask) body.mask = await picture(mask);

process.once("SIGINT", async () => {
  await post("jobs/generate", { action: "cancel", id });
  process.exit(130);
});
const watching = watch(id).catch(() => {}); // a picture without progress is a picture
const response = await post("tryon/generate", body);
const answer = await response.json();
if (!response.ok) {
  console.error(answer.error);
  process.exit(1);
}
await watching;
await writeFile(result, Buffer.from(answer.images.split(",", 2)[1], "base64"));
console.log("seed", answer.seeds, "in", Math.round(JSON.parse(answer.info).milliseconds.total), "ms");
