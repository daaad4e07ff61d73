package users;

import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.state.Stores;

/**
 * The command side on Kafka Streams.
 *
 * <p>Arguments: bootstrap servers, prefix of the names, partitions, id of the cluster, folder,
 * number of stream threads, codec of what is written.
 *
 * <p>exactly_once_v2, and its state in memory behind the store's cache, so that the changelog gets
 * one record per user and commit. Fetches and batches are as large as ours and compressed in the
 * same way; what else there is to set is as Kafka Streams has it, the commit every 100 ms too.
 */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) {
        String prefix = arguments[1];
        Properties config = new Properties();
        config.putAll(Map.of(
            "application.id", prefix + "streams",
            "bootstrap.servers", arguments[0],
            "state.dir", arguments[4],
            "processing.guarantee", "exactly_once_v2",
            "num.stream.threads", arguments[5],
            "replication.factor", "1",
            "statestore.cache.max.bytes", String.valueOf(64 << 20),
            "consumer.max.partition.fetch.bytes", String.valueOf(4 << 20),
            "consumer.max.poll.records", "2000",
            "producer.batch.size", String.valueOf(512 << 10)));
        config.put("producer.compression.type", arguments[6]);
        KafkaStreams streams = new KafkaStreams(
            topology(prefix, Integer.parseInt(arguments[2]), arguments[3]), config);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    private static Topology topology(String prefix, int partitions, String cluster) {
        ByteArrayDeserializer read = new ByteArrayDeserializer();
        ByteArraySerializer write = new ByteArraySerializer();
        return new Topology()
            .addSource("commands", read, read, prefix + "users.commands.v1")
            .addProcessor("decide", () -> new Decider(cluster, partitions), "commands")
            .addStateStore(
                Stores.keyValueStoreBuilder(
                        Stores.inMemoryKeyValueStore(Decider.STORE), Serdes.String(), User.SERDE)
                    .withCachingEnabled(),
                "decide")
            .addSink("events", prefix + "users.events.v1", write, write, "decide")
            .addSink("outcomes", prefix + "users.outcomes.v1", write, write, "decide")
            .addSink("dead", prefix + "users.commands.dead.v1", write, write, "decide");
    }
}
