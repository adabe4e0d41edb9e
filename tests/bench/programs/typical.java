import java.util.List;
import java.util.stream.Collectors;

record Row(String name, int value) {}

public class Main {
    public static void main(String[] args) {
        var rows = List.of(new Row("a", 1), new Row("b", 2), new Row("a", 3));
        var sums = rows.stream().collect(Collectors.groupingBy(Row::name, Collectors.summingInt(Row::value)));
        System.out.println(sums);
    }
}
