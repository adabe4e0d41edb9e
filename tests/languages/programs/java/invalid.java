public class Main {
    public static void main(String[] args) {
        System.out.println("not reached");
        int number = "text";
    }
}
