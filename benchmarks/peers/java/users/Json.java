package users;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;

/** JSON, in and out. */
final class Json {
    static final ObjectMapper MAPPER =
        new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

    /** Writes the inside of an object. */
    interface Content {
        void write(JsonGenerator to) throws IOException;
    }

    private Json() {}

    /** One object, as bytes. */
    static byte[] object(Content content) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream(512);
        try (JsonGenerator to = MAPPER.createGenerator(bytes)) {
            to.writeStartObject();
            content.write(to);
            to.writeEndObject();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return bytes.toByteArray();
    }

    /** A field, unless it has no value. */
    static void optional(JsonGenerator to, String name, String value) throws IOException {
        if (value != null) {
            to.writeStringField(name, value);
        }
    }
}
