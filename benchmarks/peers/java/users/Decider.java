package users;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.UUID;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;

/** Decides commands: events, outcomes and dead letters as streams/command_partition.py has them. */
final class Decider implements Processor<byte[], byte[], byte[], byte[]> {
    static final String STORE = "users";

    private final String cluster;
    private final int partitions;
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, User> users;

    Decider(String cluster, int partitions) {
        this.cluster = cluster;
        this.partitions = partitions;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        this.context = context;
        users = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        RecordMetadata at = context.recordMetadata().orElseThrow();
        byte[] outcome;
        try {
            outcome = answer(Command.read(record, at), record, at);
        } catch (Poison poison) {
            context.forward(deadLetter(record, poison, at), "dead");
            outcome = deadLettered(record, poison, at);
        }
        context.forward(
            new Record<>(record.key(), outcome, record.timestamp(), new RecordHeaders()),
            "outcomes");
    }

    private byte[] answer(Command command, Record<byte[], byte[]> record, RecordMetadata at)
            throws Poison {
        User user = users.get(command.aggregateId());
        if (user == null) {
            checkPartition(record.key(), at.partition());
        }
        String id = command.id().toString().replace("-", "");
        User.Answer first = User.answerTo(user, id);
        if (first != null) {
            return outcome("duplicate", command, record, at, to -> {
                to.writeObjectFieldStart("of");
                to.writeStringField("status", first.code() == null ? "accepted" : "rejected");
                said(to, command, first, at);
                to.writeEndObject();
            });
        }
        try {
            User.Event event = User.decide(user, command);
            long sequence = user == null ? 1 : user.version() + 1;
            User.Answer answer = new User.Answer(id, sequence, at.offset(), null, null);
            context.forward(
                new Record<>(record.key(), envelope(event, command, sequence, at),
                    record.timestamp(), new RecordHeaders()),
                "events");
            users.put(command.aggregateId(), User.evolve(user, event, command, answer));
            return outcome("accepted", command, record, at, to -> said(to, command, answer, at));
        } catch (Rejected rejected) {
            User.Answer answer =
                new User.Answer(id, 0, at.offset(), rejected.code, rejected.getMessage());
            if (user != null) {
                users.put(command.aggregateId(), user.remembering(answer));
            }
            return outcome("rejected", command, record, at, to -> said(to, command, answer, at));
        }
    }

    private byte[] envelope(User.Event event, Command command, long sequence, RecordMetadata at) {
        return Json.object(to -> {
            to.writeStringField("type", event.type());
            to.writeNumberField("schemaVersion", 1);
            to.writeStringField("id",
                Ids.ofEvent(command.id(), command.aggregateId(), sequence).toString());
            to.writeStringField("aggregateId", command.aggregateId());
            to.writeNumberField("sequence", sequence);
            to.writeStringField("timestamp", Command.format(command.timestamp()));
            to.writeStringField("commandId", command.id().toString());
            source(to, at);
            Json.optional(to, "correlationId", command.correlationId());
            Json.optional(to, "causationId", command.causationId());
            Json.optional(to, "email", event.email());
            Json.optional(to, "firstName", event.firstName());
            Json.optional(to, "lastName", event.lastName());
            Json.optional(to, "registrationSource", event.registrationSource());
        });
    }

    private byte[] outcome(String status, Command command, Record<byte[], byte[]> record,
            RecordMetadata at, Json.Content said) {
        return Json.object(to -> {
            reply(to, status, record, at);
            to.writeStringField("commandId", command.id().toString());
            to.writeStringField("aggregateId", command.aggregateId());
            Json.optional(to, "correlationId", command.correlationId());
            said.write(to);
        });
    }

    private void said(JsonGenerator to, Command command, User.Answer answer, RecordMetadata at)
            throws IOException {
        if (answer.code() != null) {
            to.writeStringField("code", answer.code());
            to.writeStringField("reason", answer.reason());
            return;
        }
        to.writeNumberField("sequence", answer.sequence());
        to.writeArrayFieldStart("eventIds");
        to.writeString(
            Ids.ofEvent(command.id(), command.aggregateId(), answer.sequence()).toString());
        to.writeEndArray();
        to.writeStringField("token", Ids.token(cluster, at.topic(), at.partition(),
            answer.offset(), command.aggregateId(), answer.sequence()));
    }

    private byte[] deadLettered(Record<byte[], byte[]> record, Poison poison, RecordMetadata at) {
        return Json.object(to -> {
            reply(to, "dead-lettered", record, at);
            try { // whoever waits for the outcome should get it, if it says who that is
                JsonNode data = Command.parse(record.value());
                UUID id = Command.uuid(data.get("id"));
                String aggregateId = Command.key(data.get("aggregateId"), "aggregateId");
                if (id != null && aggregateId != null) {
                    to.writeStringField("commandId", id.toString());
                    to.writeStringField("aggregateId", aggregateId);
                }
            } catch (Poison unreadable) {
                // then without
            }
            to.writeStringField("code", poison.code);
            to.writeStringField("reason", poison.getMessage());
        });
    }

    private Record<byte[], byte[]> deadLetter(
            Record<byte[], byte[]> record, Poison poison, RecordMetadata at) {
        RecordHeaders headers = new RecordHeaders(record.headers());
        headers.add("cqrs-dead-code", utf8(poison.code));
        headers.add("cqrs-dead-reason", utf8(poison.getMessage()));
        headers.add("cqrs-source-topic", utf8(at.topic()));
        headers.add("cqrs-source-partition", utf8(String.valueOf(at.partition())));
        headers.add("cqrs-source-offset", utf8(String.valueOf(at.offset())));
        headers.add("cqrs-source-timestamp", utf8(String.valueOf(record.timestamp())));
        return new Record<>(record.key(), record.value(), record.timestamp(), headers);
    }

    private void checkPartition(byte[] key, int partition) throws Poison {
        if (Utils.toPositive(Utils.murmur2(key)) % partitions != partition) {
            throw new Poison("wrong-partition", "the key belongs to another partition");
        }
    }

    private static void reply(JsonGenerator to, String status, Record<byte[], byte[]> record,
            RecordMetadata at) throws IOException {
        to.writeStringField("status", status);
        to.writeStringField("timestamp", Command.format(Instant.ofEpochMilli(record.timestamp())));
        source(to, at);
    }

    private static void source(JsonGenerator to, RecordMetadata at) throws IOException {
        to.writeObjectFieldStart("source");
        to.writeStringField("topic", at.topic());
        to.writeNumberField("partition", at.partition());
        to.writeNumberField("offset", at.offset());
        to.writeEndObject();
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
