public class Main {
    public static void main(String[] args) {
        System.out.println("before the end");
        System.exit(7);
    }
}
