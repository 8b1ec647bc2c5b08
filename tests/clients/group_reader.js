// A group's member with KafkaJS: group_reader.js BOOTSTRAP GROUP TOPIC RECORDS, as group_reader.py does it.
const { Kafka, logLevel } = require("kafkajs");

async function read(bootstrap, groupId, topic, records) {
  const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR, retry: { retries: 8 } });
  const client = kafka.consumer({ groupId, maxBytes: 1 });
  await client.connect();
  await client.subscribe({ topics: [topic], fromBeginning: true });
  let left = Number(records);
  await new Promise((done, fail) => {
    setTimeout(() => fail(new Error(`${left} records did not come`)), 90000).unref();
    client.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        if (left === 0) return;
        left -= 1;
        console.log(JSON.stringify({ at: `${partition}:${message.offset}`, value: message.value.toString() }));
        await client.commitOffsets([{ topic, partition, offset: (BigInt(message.offset) + 1n).toString() }]);
        if (left === 0) done();
      },
    }).catch(fail);
  });
  await client.disconnect();
}

read(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
