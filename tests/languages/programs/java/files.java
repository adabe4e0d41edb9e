import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

public class Main {
    public static void main(String[] args) throws IOException {
        String text = Files.readString(Path.of("données.txt"));
        Files.createDirectory(Path.of("out"));
        Files.writeString(Path.of("out", "copy.txt"), text + "more\n");
        System.out.println("written");
    }
}
