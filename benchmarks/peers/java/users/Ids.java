package users;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Base64;
import java.util.UUID;
import java.util.zip.CRC32;

/** Ids that follow from others, and tokens: models/messages.py and models/tokens.py. */
final class Ids {
    private static final UUID COMMANDS = UUID.fromString("8a2f5bb1-4c1e-5d0c-9a3b-6f1f6f0c8e57");
    private static final Base64.Encoder BASE64 = Base64.getUrlEncoder().withoutPadding();
    private static final ThreadLocal<MessageDigest> SHA1 = ThreadLocal.withInitial(Ids::sha1);

    private Ids() {}

    /** The id of a command that came without one. */
    static UUID ofCommandAt(String topic, int partition, long offset) {
        return uuid5(COMMANDS, topic + "/" + partition + "/" + offset);
    }

    /** The id of an event. */
    static UUID ofEvent(UUID command, String aggregateId, long sequence) {
        return uuid5(command, aggregateId + "/" + sequence);
    }

    /** What lets a query see the write. */
    static String token(
        String cluster, String topic, int partition, long offset, String id, long sequence) {
        byte[] data = ("[1," + quoted(cluster) + ",[" + quoted(topic) + "," + partition + ","
            + offset + "," + quoted(id) + "," + sequence + "]]").getBytes(StandardCharsets.UTF_8);
        CRC32 checksum = new CRC32();
        checksum.update(data);
        ByteBuffer bytes = ByteBuffer.allocate(4 + data.length);
        bytes.putInt((int) checksum.getValue()).put(data);
        return BASE64.encodeToString(bytes.array());
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    private static UUID uuid5(UUID namespace, String name) {
        ByteBuffer id = ByteBuffer.allocate(16);
        id.putLong(namespace.getMostSignificantBits()).putLong(namespace.getLeastSignificantBits());
        MessageDigest sha1 = SHA1.get();
        sha1.update(id.array());
        ByteBuffer hash = ByteBuffer.wrap(sha1.digest(name.getBytes(StandardCharsets.UTF_8)));
        long most = hash.getLong() & ~0xF000L | 0x5000L;
        long least = hash.getLong() & 0x3FFFFFFFFFFFFFFFL | 0x8000000000000000L;
        return new UUID(most, least);
    }

    private static MessageDigest sha1() {
        try {
            return MessageDigest.getInstance("SHA-1");
        } catch (NoSuchAlgorithmException error) {
            throw new AssertionError(error);
        }
    }
}
