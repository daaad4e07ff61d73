// Register a user, wait for the outcome, and find the user by a fragment of the email address.
// node register.js USER EMAIL [COMMAND_ID]
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import kafkajs from "kafkajs";
import { ZSTDDecoder } from "zstddec/stream";

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = kafkajs;
const [user, email, commandId = randomUUID()] = process.argv.slice(2);
const env = process.env;
const namespace = env.CQRS_NAMESPACE ?? "";
const commands = `${namespace}users.commands.v1`;
const outcomes = `${namespace}users.outcomes.v1`;
const outcomeTimeout = 1000 * (env.CQRS_OUTCOME_TIMEOUT ?? 30);
const VIEW_TIMEOUT = 30_000;

// The workers compress with zstd, which kafkajs knows only by its name.
const zstd = new ZSTDDecoder();
await zstd.init();
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  decompress: async (data) => Buffer.from(zstd.decode(data)),
});

const kafka = new Kafka({
  clientId: "register",
  brokers: env.CQRS_BOOTSTRAP_SERVERS.split(","),
  logLevel: logLevel.NOTHING, // errors are thrown, too
});
const admin = kafka.admin();
// murmur2 of the key, as in Java's client. The LegacyPartitioner puts keys elsewhere.
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
// kafkajs reads in groups only; one of our own, in which nothing is committed, leaves nothing.
const consumer = kafka.consumer({ groupId: `register-${randomUUID()}` });

// Send the command until there is an outcome: its id makes it safe to send it again.
async function dispatch(command) {
  const ends = await admin.fetchTopicOffsets(outcomes); // before it is sent: the outcome is later
  let outcome;
  for (;;) {
    const [{ partition }] = await producer.send({
      topic: commands,
      messages: [{ key: command.aggregateId, value: JSON.stringify(command) }],
    });
    outcome ??= outcomeOf(command, partition, ends); // it comes in the command's partition
    const timer = new AbortController();
    const timeout = sleep(outcomeTimeout, null, { signal: timer.signal });
    const decided = await Promise.race([outcome, timeout]).finally(() => timer.abort());
    if (decided) return decided;
    console.error("no outcome yet: sending it again");
  }
}

async function outcomeOf(command, partition, ends) {
  await consumer.subscribe({ topic: outcomes });
  return new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || reject(payload.error));
    consumer
      .run({
        autoCommit: false,
        eachMessage: async ({ message }) => {
          const outcome = JSON.parse(message.value);
          // A parked command gets its final outcome later.
          if (outcome.commandId === command.id && outcome.status !== "parked") resolve(outcome);
        },
      })
      .then(() => {
        for (const end of ends) {
          if (end.partition === partition) consumer.seek({ topic: outcomes, ...end });
          else consumer.pause([{ topic: outcomes, partitions: [end.partition] }]);
        }
      }, reject);
  });
}

// Search until the user is found with this write: without the token's wait a client has to poll.
async function find(fragment, version) {
  const url = `${env.CQRS_ELASTICSEARCH_URL.split(",")[0]}/${namespace}user-views/_search`;
  const body = { query: fragmentQuery(fragment), sort: ["registeredAt", "id"] };
  for (const end = Date.now() + VIEW_TIMEOUT; Date.now() < end; await sleep(50)) {
    const response = await fetch(`${url}?ignore_unavailable=true`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(await response.text());
    const users = (await response.json()).hits.hits.map((hit) => hit._source);
    const found = users.find((one) => one.id === user && one.version >= version);
    if (found) return found;
  }
  throw new Error(`the view does not show version ${version} of ${user} yet`);
}

// docs/search.md explains it. Values are case-folded; toLowerCase does the same for ASCII.
function fragmentQuery(fragment) {
  const codes = Array.from(fragment.toLowerCase(), (character) =>
    /[a-z0-9]/.test(character) ? character : `X${character.codePointAt(0).toString(16)}Z`,
  );
  if (codes.length < 3) return { term: { "emailFragments.short": codes.join("") } };
  const last = codes.length - 3;
  const words = codes
    .slice(0, last + 1)
    .map((_, i) => (i % 3 === 0 || i === last ? codes.slice(i, i + 3).join("") : "H"));
  return { constant_score: { filter: { match_phrase: { emailFragments: words.join(" ") } } } };
}

async function main() {
  console.log(`sent: RegisterUser ${commandId}`);
  const outcome = await dispatch({
    type: "RegisterUser",
    id: commandId,
    aggregateId: user,
    email,
    firstName: "Anna",
    lastName: "Muster",
    registrationSource: "web",
  });
  const reply = outcome.status === "duplicate" ? outcome.of : outcome;
  const again = outcome.status === "duplicate" ? "duplicate, first " : "";
  if (reply.status !== "accepted") {
    throw new Error(`${again}${reply.status}: ${reply.reason} (${reply.code})`);
  }
  console.log(`${again}accepted: ${user} is at version ${reply.sequence}`);
  const found = await find(email.slice(1).toUpperCase(), reply.sequence);
  console.log(`found: ${found.id} ${found.email} version ${found.version}`);
}

const clients = [admin, producer, consumer];
try {
  await Promise.all(clients.map((client) => client.connect()));
  await main();
} catch (error) {
  console.error([error.message, error.cause?.message].filter(Boolean).join(": "));
  process.exitCode = 1;
} finally {
  await Promise.all(clients.map((client) => client.disconnect()));
}
