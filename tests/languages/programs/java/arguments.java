class Brackets {
    static String around(String text) {
        return "[" + text + "]";
    }
}

public class Main {
    public static void main(String[] args) {
        for (String argument : args) {
            System.out.println(Brackets.around(argument));
        }
    }
}
