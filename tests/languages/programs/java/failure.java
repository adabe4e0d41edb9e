public class Main {
    static void fail() {
        throw new IllegalStateException("went wrong on purpose");
    }

    public static void main(String[] args) {
        fail();
    }
}
