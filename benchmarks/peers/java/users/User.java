package users;

import com.fasterxml.jackson.annotation.JsonFormat;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** A user with its version and dedupe window, and the rules of models/user.py. */
@JsonFormat(shape = JsonFormat.Shape.ARRAY)
record User(
        long version, String email, String firstName, String lastName, String registrationSource,
        boolean isActive, long registeredAt, long lastUpdated, List<User.Answer> answers) {

    private static final int DEDUPE_WINDOW = 16;

    /** What was answered to a command: accepted with a sequence, or rejected with a code. */
    @JsonFormat(shape = JsonFormat.Shape.ARRAY)
    record Answer(String id, long sequence, long offset, String code, String reason) {}

    /** An event: the fields that are not null. */
    record Event(
        String type, String email, String firstName, String lastName, String registrationSource) {}

    static final Serde<User> SERDE = Serdes.serdeFrom(
        (topic, user) -> {
            try {
                return user == null ? null : Json.MAPPER.writeValueAsBytes(user);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        },
        (topic, bytes) -> {
            try {
                return bytes == null ? null : Json.MAPPER.readValue(bytes, User.class);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        });

    /** What was answered to this command, or null. */
    static Answer answerTo(User user, String id) {
        if (user != null) {
            for (Answer answer : user.answers) {
                if (answer.id.equals(id)) {
                    return answer;
                }
            }
        }
        return null;
    }

    /** The event that the command brings about. */
    static Event decide(User user, Command command) throws Rejected {
        long version = user == null ? 0 : user.version;
        if (command.expectedVersion() != null && command.expectedVersion() != version) {
            throw new Rejected("version-mismatch", "Expected version " + command.expectedVersion()
                + ", but the version is " + version);
        }
        if (command.type().equals("RegisterUser")) {
            if (user != null) {
                throw new Rejected("user-exists", "User already exists");
            }
            return new Event("UserRegistered", command.email(), command.firstName(),
                command.lastName(), command.registrationSource());
        }
        if (user == null) {
            throw new Rejected("user-not-found", "User not found");
        }
        return switch (command.type()) {
            case "UpdateUserProfile" -> update(user, command);
            case "DeactivateUser" -> {
                if (!user.isActive) {
                    throw new Rejected("user-inactive", "User is already inactive");
                }
                yield new Event("UserDeactivated", null, null, null, null);
            }
            case "ReactivateUser" -> {
                if (user.isActive) {
                    throw new Rejected("user-active", "User is already active");
                }
                yield new Event("UserReactivated", null, null, null, null);
            }
            default -> throw new IllegalStateException(command.type());
        };
    }

    /** The user after the event of this command, which is remembered. */
    static User evolve(User user, Event event, Command command, Answer answer) {
        long at = command.timestamp().getEpochSecond() * 1_000_000
            + command.timestamp().getNano() / 1000;
        if (user == null) {
            return new User(1, event.email, event.firstName, event.lastName,
                event.registrationSource, true, at, at, List.of(answer));
        }
        boolean active = switch (event.type) {
            case "UserDeactivated" -> false;
            case "UserReactivated" -> true;
            default -> user.isActive;
        };
        return new User(user.version + 1, or(event.email, user.email),
            or(event.firstName, user.firstName), or(event.lastName, user.lastName),
            user.registrationSource, active, user.registeredAt, at, user.with(answer));
    }

    /** The same with one more answer in the window. */
    User remembering(Answer answer) {
        return new User(version, email, firstName, lastName, registrationSource, isActive,
            registeredAt, lastUpdated, with(answer));
    }

    private static Event update(User user, Command command) throws Rejected {
        if (command.email() == null && command.firstName() == null && command.lastName() == null) {
            throw new Rejected("nothing-to-change",
                "Nothing to change: give an email, a first name or a last name");
        }
        Event changes = new Event("UserProfileUpdated",
            changed(command.email(), user.email), changed(command.firstName(), user.firstName),
            changed(command.lastName(), user.lastName), null);
        if (changes.email == null && changes.firstName == null && changes.lastName == null) {
            throw new Rejected("nothing-to-change",
                "Nothing to change: the user has these values already");
        }
        return changes;
    }

    private List<Answer> with(Answer answer) {
        List<Answer> last = new ArrayList<>(
            answers.subList(Math.max(0, answers.size() - DEDUPE_WINDOW + 1), answers.size()));
        last.add(answer);
        return last;
    }

    private static String changed(String wanted, String is) {
        return Objects.equals(wanted, is) ? null : wanted;
    }

    private static String or(String changed, String is) {
        return changed == null ? is : changed;
    }
}
