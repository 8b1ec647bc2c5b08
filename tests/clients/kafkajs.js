// KafkaJS: kafkajs.js BOOTSTRAP produce LEDGER WRITER TOPIC RECORDS CODEC IDEMPOTENCE
// It consumes by groups only, so it only writes here. Its own codecs are none and gzip.
const { createHash } = require("crypto");
const { createWriteStream } = require("fs");
const { Kafka, CompressionTypes, logLevel } = require("kafkajs");

// The hash of clients/shapes.py.
function digest(key, value, headers) {
  const state = createHash("sha256");
  const fields = [key, value, ...Object.entries(headers).flatMap(([name, text]) => [Buffer.from(name), Buffer.from(text)])];
  for (const field of fields) {
    const length = Buffer.alloc(4);
    length.writeInt32BE(field === null ? -1 : field.length);
    state.update(length);
    if (field !== null) state.update(field);
  }
  return state.digest("hex").slice(0, 16);
}

function record(writer, sequence) {
  const name = `${writer}:${sequence}:`;
  const key = sequence % 3 === 0 ? null : Buffer.from(`${name}key`);
  const value = key !== null && sequence % 50 === 1 ? null : Buffer.from(name + "x".repeat((sequence * 37) % 1500));
  const headers = sequence % 4 === 0 ? { h0: `v${sequence}`, h1: "w" } : {};
  return { key, value, headers };
}

async function produce(bootstrap, path, writer, topic, records, codec, idempotence) {
  const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR, retry: { retries: 8 } });
  const client = kafka.producer({ idempotent: idempotence === "true", maxInFlightRequests: 5 });
  const ledger = createWriteStream(path);
  await client.connect();
  const batch = 100;
  for (let first = 0; first < records; first += batch) {
    const sequences = [...Array(Math.min(batch, records - first)).keys()].map((step) => first + step);
    const messages = sequences.map((sequence) => ({ ...record(writer, sequence), partition: 0 }));
    sequences.forEach((sequence, at) => {
      const { key, value, headers } = messages[at];
      ledger.write(`s ${sequence} ${digest(key, value, headers)}\n`);
    });
    const compression = codec === "gzip" ? CompressionTypes.GZIP : CompressionTypes.None;
    const [answer] = await client.send({ topic, messages, acks: -1, compression });
    const base = BigInt(answer.baseOffset);
    sequences.forEach((sequence, at) => ledger.write(`a ${sequence} ${topic} ${answer.partition} ${base + BigInt(at)}\n`));
  }
  await client.disconnect();
  await new Promise((done) => ledger.end(done));
  console.log(JSON.stringify({ sent: Number(records) }));
}

const [bootstrap, verb, ...rest] = process.argv.slice(2);
if (verb !== "produce") throw new Error(`unknown verb ${verb}`);
produce(bootstrap, ...rest).catch((error) => {
  console.error(error);
  process.exit(1);
});
