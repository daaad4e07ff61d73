// Register a user, wait for the outcome, and find the user by a fragment of the email address.
// java -cp 'target/dependency/*' Register.java USER EMAIL [COMMAND_ID]
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public final class Register {
    private static final Duration VIEW_TIMEOUT = Duration.ofSeconds(30);
    private static final ObjectMapper JSON = new ObjectMapper();

    private final String servers = System.getenv("CQRS_BOOTSTRAP_SERVERS");
    private final String elasticsearch = System.getenv("CQRS_ELASTICSEARCH_URL").split(",")[0];
    private final String namespace = environment("CQRS_NAMESPACE", "");
    private final double timeout = Double.parseDouble(environment("CQRS_OUTCOME_TIMEOUT", "30"));

    public static void main(String[] arguments) throws Exception {
        var id = arguments.length > 2 ? arguments[2] : UUID.randomUUID().toString();
        try {
            new Register().run(arguments[0], arguments[1], id);
        } catch (IllegalStateException | KafkaException problem) {
            System.err.println(problem.getMessage());
            System.exit(1);
        }
    }

    private void run(String user, String email, String id) throws Exception {
        System.out.println("sent: RegisterUser " + id);
        var outcome = dispatch(user, id, Map.of(
                "type", "RegisterUser",
                "id", id,
                "aggregateId", user,
                "email", email,
                "firstName", "Anna",
                "lastName", "Muster",
                "registrationSource", "web"));
        var duplicate = outcome.path("status").asText().equals("duplicate");
        var reply = duplicate ? outcome.path("of") : outcome;
        var status = (duplicate ? "duplicate, first " : "") + reply.path("status").asText();
        if (!reply.path("status").asText().equals("accepted")) {
            throw new IllegalStateException("%s: %s (%s)".formatted(
                    status, reply.path("reason").asText(), reply.path("code").asText()));
        }
        var version = reply.path("sequence").asLong();
        System.out.println("%s: %s is at version %d".formatted(status, user, version));

        var found = find(email.substring(1).toUpperCase(Locale.ROOT), user, version);
        System.out.println("found: %s %s version %s".formatted(
                found.path("id").asText(), found.path("email").asText(), found.path("version")));
    }

    /** Send the command until there is an outcome: its id makes it safe to send it again. */
    private JsonNode dispatch(String key, String id, Map<String, String> command) throws Exception {
        var topic = namespace + "users.outcomes.v1";
        // The default partitioner is the right one: murmur2 of the key.
        var record = new ProducerRecord<>(
                namespace + "users.commands.v1", key, JSON.writeValueAsString(command));
        Map<String, Object> sending = Map.of("bootstrap.servers", servers);
        Map<String, Object> reading = Map.of(
                "bootstrap.servers", servers, "isolation.level", "read_committed");
        try (var producer = new KafkaProducer<>(
                        sending, new StringSerializer(), new StringSerializer());
                var consumer = new KafkaConsumer<>(
                        reading, new StringDeserializer(), new StringDeserializer())) {
            // Before it is sent: the outcome is later, and in the command's partition.
            var ends = consumer.endOffsets(consumer.partitionsFor(topic).stream()
                    .map(one -> new TopicPartition(topic, one.partition())).toList());
            while (true) {
                var sent = producer.send(record).get();
                if (consumer.assignment().isEmpty()) {
                    var partition = new TopicPartition(topic, sent.partition());
                    consumer.assign(List.of(partition));
                    consumer.seek(partition, ends.get(partition));
                }
                var outcome = outcomeOf(id, consumer);
                if (outcome.isPresent()) {
                    return outcome.get();
                }
                System.err.println("no outcome yet: sending it again");
            }
        }
    }

    private Optional<JsonNode> outcomeOf(String id, KafkaConsumer<String, String> consumer)
            throws Exception {
        var end = Instant.now().plusMillis((long) (timeout * 1000));
        while (Instant.now().isBefore(end)) {
            for (var record : consumer.poll(Duration.ofMillis(100))) {
                var outcome = JSON.readTree(record.value());
                // A parked command gets its final outcome later.
                if (outcome.path("commandId").asText().equals(id)
                        && !outcome.path("status").asText().equals("parked")) {
                    return Optional.of(outcome);
                }
            }
        }
        return Optional.empty();
    }

    /** Search until the user is found with this write: without the token's wait, by polling. */
    private JsonNode find(String fragment, String user, long version) throws Exception {
        var body = JSON.writeValueAsString(
                Map.of("query", fragmentQuery(fragment), "sort", List.of("registeredAt", "id")));
        var request = HttpRequest.newBuilder(URI.create(
                        elasticsearch + "/" + namespace + "user-views/_search?ignore_unavailable=true"))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
        var client = HttpClient.newHttpClient();
        for (var end = Instant.now().plus(VIEW_TIMEOUT); Instant.now().isBefore(end);
                Thread.sleep(50)) {
            var response = client.send(request, HttpResponse.BodyHandlers.ofString());
            if (response.statusCode() != 200) {
                throw new IllegalStateException(response.body());
            }
            for (var hit : JSON.readTree(response.body()).path("hits").path("hits")) {
                var found = hit.path("_source");
                if (found.path("id").asText().equals(user)
                        && found.path("version").asLong() >= version) {
                    return found;
                }
            }
        }
        throw new IllegalStateException(
                "the view does not show version " + version + " of " + user + " yet");
    }

    /** docs/search.md explains it. Values are case-folded; for ASCII that is lower case. */
    private static Map<String, Object> fragmentQuery(String fragment) {
        var codes = fragment.toLowerCase(Locale.ROOT).codePoints()
                .mapToObj(point -> (point >= 'a' && point <= 'z') || (point >= '0' && point <= '9')
                        ? Character.toString(point)
                        : "X" + Integer.toHexString(point) + "Z")
                .toList();
        if (codes.size() < 3) {
            return Map.of("term", Map.of("emailFragments.short", String.join("", codes)));
        }
        var last = codes.size() - 3;
        var words = new ArrayList<String>();
        for (int i = 0; i <= last; i++) {
            words.add(i % 3 == 0 || i == last ? String.join("", codes.subList(i, i + 3)) : "H");
        }
        var phrase = Map.of("match_phrase", Map.of("emailFragments", String.join(" ", words)));
        return Map.of("constant_score", Map.of("filter", phrase));
    }

    private static String environment(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }
}
