package users;

/** The answer is no: its code and its reason. */
final class Rejected extends Exception {
    final String code;

    Rejected(String code, String reason) {
        super(reason, null, false, false);
        this.code = code;
    }
}
