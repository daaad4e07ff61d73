package users;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.DateTimeException;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;
import java.util.UUID;
import java.util.regex.Pattern;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;

/** A command, read by the rules of models/commands.py, models/messages.py, streams/commands.py. */
record Command(
        String type, UUID id, String aggregateId, Instant timestamp, Long expectedVersion,
        String correlationId, String causationId,
        String email, String firstName, String lastName, String registrationSource) {

    private static final Map<String, Boolean> HAS_PROFILE = Map.of(
        "RegisterUser", true, "UpdateUserProfile", true,
        "DeactivateUser", false, "ReactivateUser", false);

    /** The fields of every command, then of a profile; and what snake case they are taken in. */
    private static final Map<String, String> COMMON = spellings(
        "id", "aggregateId", "timestamp", "expectedVersion", "schemaVersion", "correlationId",
        "causationId");
    private static final Map<String, String> PROFILE = spellings("email", "firstName", "lastName");
    private static final Map<String, String> SOURCE = spellings("registrationSource");

    private static final Pattern KEY =
        Pattern.compile("[^\\s\\p{Cc}](?:\\P{Cc}*[^\\s\\p{Cc}])?");
    private static final Pattern CONTROL = Pattern.compile("\\p{Cc}");
    private static final String ATOM =
        "[A-Za-z0-9_!#$%&'*+\\-/=?^`{|}~\\u0080-\\x{10ffff}]+";
    private static final String DOT = "[.\\u3002\\uff0e\\uff61]";
    private static final String END =
        "[A-Za-z0-9\\u0080-\\u3001\\u3003-\\uff0d\\uff0f-\\uff60\\uff62-\\x{10ffff}]";
    private static final String LABEL = END + "+(?:-+" + END + "+)*";
    private static final Pattern ADDRESS = Pattern.compile(
        ATOM + "(?:\\." + ATOM + ")*@(?:" + LABEL + DOT + ")+(?![0-9]+\\z)" + LABEL);

    private static final DateTimeFormatter SECONDS =
        DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss'Z'").withZone(ZoneOffset.UTC);
    private static final DateTimeFormatter MICROSECONDS =
        DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss.SSSSSS'Z'").withZone(ZoneOffset.UTC);

    /** The command in a record. */
    static Command read(Record<byte[], byte[]> record, RecordMetadata at) throws Poison {
        JsonNode data = parse(record.value());
        if (!data.isObject()) {
            throw new Poison("not-an-object", "the value must be a JSON object");
        }
        String type = typeOf(data.get("type"));
        Map<String, JsonNode> fields = fieldsOf(data, type);
        JsonNode version = fields.get("schemaVersion");
        String email = null, first = null, last = null, source = null;
        UUID id = uuid(fields.get("id"));
        String aggregateId = key(required(fields, "aggregateId"), "aggregateId");
        Instant timestamp = time(fields.get("timestamp"));
        Long expected = whole(fields.get("expectedVersion"));
        if (version != null && !(version.isInt() && version.intValue() == 1)) {
            throw new Poison("unknown-version", "schemaVersion: must be 1");
        }
        String correlation = key(fields.get("correlationId"), "correlationId");
        String causation = key(fields.get("causationId"), "causationId");
        if (HAS_PROFILE.get(type)) {
            boolean all = type.equals("RegisterUser");
            email = email(all ? required(fields, "email") : fields.get("email"));
            first = line(all ? required(fields, "firstName") : fields.get("firstName"), "firstName");
            last = line(all ? required(fields, "lastName") : fields.get("lastName"), "lastName");
            source = all ? line(required(fields, "registrationSource"), "registrationSource") : null;
        }
        Command command = new Command(
            type,
            id != null ? id : Ids.ofCommandAt(at.topic(), at.partition(), at.offset()),
            aggregateId,
            timestamp != null ? timestamp : Instant.ofEpochMilli(record.timestamp()),
            expected, correlation, causation, email, first, last, source);
        if (!Arrays.equals(record.key(), aggregateId.getBytes(StandardCharsets.UTF_8))) {
            throw new Poison("key-mismatch", "the record's key must be the command's aggregate id");
        }
        for (Header header : record.headers()) {
            command.check(header);
        }
        return command;
    }

    /** The value as JSON. */
    static JsonNode parse(byte[] value) throws Poison {
        try {
            JsonNode data = value == null ? null : Json.MAPPER.readTree(value);
            if (data != null && !data.isMissingNode()) {
                return data;
            }
        } catch (IOException error) {
            // whatever it is, it is not JSON
        }
        throw new Poison("malformed-json", "the value is not JSON");
    }

    /** A time in UTC; microseconds are kept where there are any. */
    static String format(Instant time) {
        return (time.getNano() == 0 ? SECONDS : MICROSECONDS).format(time);
    }

    /** A UUID in its usual form; null is none. */
    static UUID uuid(JsonNode value) throws Poison {
        if (value == null) {
            return null;
        }
        try {
            if (value.isTextual() && value.textValue().length() == 36) {
                return UUID.fromString(value.textValue());
            }
        } catch (IllegalArgumentException error) {
            // said below
        }
        throw new Poison("invalid-field", "id: must be a UUID");
    }

    /** An aggregate's id, or what looks like one; null is none. */
    static String key(JsonNode value, String name) throws Poison {
        if (value == null) {
            return null;
        }
        String text = text(value, name);
        if (text.codePointCount(0, text.length()) > 128 || !KEY.matcher(text).matches()) {
            throw new Poison("invalid-field", name + ": must be 1 to 128 plain characters");
        }
        return text;
    }

    private static String typeOf(JsonNode value) throws Poison {
        if (value == null || value.isNull()) {
            throw new Poison("missing-field", "type: is missing");
        }
        String name = text(value, "type");
        String known = HAS_PROFILE.containsKey(name) || !name.endsWith("Command")
            ? name : name.substring(0, name.length() - "Command".length());
        if (!HAS_PROFILE.containsKey(known)) {
            throw new Poison("unknown-type", "No handler registered for this command");
        }
        return known;
    }

    /** The fields that are not null, by their names in camel case; no others are allowed. */
    private static Map<String, JsonNode> fieldsOf(JsonNode data, String type) throws Poison {
        Map<String, JsonNode> fields = new HashMap<>();
        for (Iterator<Map.Entry<String, JsonNode>> all = data.fields(); all.hasNext(); ) {
            Map.Entry<String, JsonNode> field = all.next();
            if (field.getKey().equals("type") || field.getValue().isNull()) {
                continue;
            }
            String name = COMMON.get(field.getKey());
            if (name == null && HAS_PROFILE.get(type)) {
                name = PROFILE.get(field.getKey());
            }
            if (name == null && type.equals("RegisterUser")) {
                name = SOURCE.get(field.getKey());
            }
            if (name == null || fields.put(name, field.getValue()) != null) {
                throw new Poison("invalid-field", "a field that is none, or is given twice");
            }
        }
        return fields;
    }

    private static JsonNode required(Map<String, JsonNode> fields, String name) throws Poison {
        JsonNode value = fields.get(name);
        if (value == null) {
            throw new Poison("missing-field", name + ": is missing");
        }
        return value;
    }

    private static String text(JsonNode value, String name) throws Poison {
        if (!value.isTextual()) {
            throw new Poison("invalid-field", name + ": must be a string");
        }
        return value.textValue();
    }

    private static String line(JsonNode value, String name) throws Poison {
        if (value == null) {
            return null;
        }
        String text = text(value, name).strip();
        if (text.isEmpty() || text.codePointCount(0, text.length()) > 200
                || CONTROL.matcher(text).find()) {
            throw new Poison("invalid-field", name + ": must be 1 to 200 plain characters");
        }
        return text;
    }

    private static String email(JsonNode value) throws Poison {
        if (value == null) {
            return null;
        }
        String text = text(value, "email");
        boolean fits = text.length() <= 84 || text.getBytes(StandardCharsets.UTF_8).length <= 254;
        if (!fits || !text.codePoints().allMatch(Command::isPrintable)
                || !ADDRESS.matcher(text).matches()) {
            throw new Poison("invalid-field", "email: must be an email address");
        }
        return text;
    }

    private static boolean isPrintable(int character) {
        if (character < 127) {
            return character >= ' ';
        }
        return switch (Character.getType(character)) {
            case Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE,
                Character.UNASSIGNED, Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR,
                Character.SPACE_SEPARATOR -> false;
            default -> true;
        };
    }

    private static Instant time(JsonNode value) throws Poison {
        if (value == null) {
            return null;
        }
        try {
            return OffsetDateTime.parse(text(value, "timestamp")).toInstant();
        } catch (DateTimeException error) {
            throw new Poison("invalid-field", "timestamp: must be an ISO 8601 time with a zone");
        }
    }

    private static Long whole(JsonNode value) throws Poison {
        if (value == null) {
            return null;
        }
        if (!value.isIntegralNumber() || !value.canConvertToLong() || value.longValue() < 0) {
            throw new Poison("invalid-field", "expectedVersion: must be a whole number from 0");
        }
        return value.longValue();
    }

    /** What headers repeat of the value must agree with it. */
    private void check(Header header) throws Poison {
        Object said = switch (header.key()) {
            case "id" -> id;
            case "aggregateId" -> aggregateId;
            case "expectedVersion" -> expectedVersion;
            case "schemaVersion" -> 1;
            case "correlationId" -> correlationId;
            case "causationId" -> causationId;
            case "type" -> type;
            default -> header; // not one of ours
        };
        if (said == header) {
            return;
        }
        String given =
            header.value() == null ? null : new String(header.value(), StandardCharsets.UTF_8);
        if (given != null && said == type && given.endsWith("Command")) {
            given = given.substring(0, given.length() - "Command".length());
        }
        if (!(said == null ? "" : said.toString()).equals(given)) {
            throw new Poison("header-mismatch", "a header contradicts the value");
        }
    }

    private static Map<String, String> spellings(String... names) {
        Map<String, String> known = new HashMap<>();
        for (String name : names) {
            known.put(name, name);
            known.put(name.replaceAll("([A-Z])", "_$1").toLowerCase(), name);
        }
        return known;
    }
}
