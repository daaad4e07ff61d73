package users;

/** A record that is no command: the code and the reason of its dead letter. */
final class Poison extends Exception {
    final String code;

    Poison(String code, String reason) {
        super(reason, null, false, false);
        this.code = code;
    }
}
