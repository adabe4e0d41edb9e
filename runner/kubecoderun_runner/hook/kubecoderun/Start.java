package kubecoderun;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.io.Writer;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import javax.tools.FileObject;
import javax.tools.ForwardingJavaFileManager;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileManager;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.StandardJavaFileManager;
import javax.tools.StandardLocation;
import javax.tools.ToolProvider;

/**
 * Compiles a program in memory and runs it, in one Java virtual machine, as `java Main.java` does.
 *
 * <p>What differs: the class with a main method need not be the first one, other source files of the folder are found,
 * and the virtual machine can be started before there is a program (--held): then it compiles samples, writes a
 * NUL to descriptor 4, and waits for the arguments on descriptor 3, each followed by NUL.
 */
public final class Start {
    private static final List<String> OPTIONS = List.of("-proc:none", "-implicit:class", "-sourcepath", ".");
    private static final String SAMPLE = """
            import java.util.*;
            import java.util.stream.*;
            record Point(int x, String name) {}
            interface Shape { double area(); }
            class Square implements Shape { public double area() { return 4.0; } }
            public class Sample {
                static <T> List<T> twice(List<T> all) { return all.stream().toList(); }
                public static void main(String[] args) throws Exception {
                    Map<String, Integer> counts = new HashMap<>();
                    for (String word : "a b a".split(" ")) counts.merge(word, 1, Integer::sum);
                    var points = IntStream.range(0, 9).mapToObj(i -> new Point(i, "p" + i)).collect(Collectors.toList());
                    String line = switch (points.size()) { case 9 -> String.format("%s %.2f", counts, 1.5); default -> ""; };
                    StringBuilder text = new StringBuilder(line).append(twice(points)).append(new Square().area());
                    try { Integer.parseInt("x"); } catch (NumberFormatException e) { text.append(e.getMessage()); }
                    if (args.length > 0) System.out.println(text);
                }
            }
            """;

    private Start() {}

    /** The program's file and arguments; or, for a sample of the work (`--train`), nothing. */
    public static void main(String[] args) throws Throwable {
        if (args.length == 1 && args[0].equals("--train")) {
            warmUp();
            return;
        }
        boolean held = args.length == 2 && args[0].equals("--held");
        Path source = Path.of(args[held ? 1 : 0]);
        String[] rest = Arrays.copyOfRange(args, 1, args.length);
        if (held) {
            warmUp();
            rest = awaitArguments();
        }
        Classes classes = new Classes();
        if (!compile(classes, source.getFileName().toString(), Files.readString(source), new PrintWriter(System.err, true))) {
            System.exit(1);
        }
        String stem = source.getFileName().toString().replaceFirst("\\.java$", "");
        run(classes, stem, rest);
    }

    private static void warmUp() throws Throwable {
        for (int round = 0; round < 3; round++) {
            Classes classes = new Classes();
            compile(classes, "Sample.java", SAMPLE, new PrintWriter(new StringWriter()));
            run(classes, "Sample", new String[0]);
        }
        compile(new Classes(), "Broken.java", "class Broken { int x = \"\"; }", new PrintWriter(new StringWriter()));
        Thread.currentThread().setContextClassLoader(ClassLoader.getSystemClassLoader());
        System.gc();
    }

    private static String[] awaitArguments() throws IOException {
        // pipes: opened like this they need no access to what the class library keeps for itself
        try (OutputStream report = Files.newOutputStream(Path.of("/dev/fd/4"))) {
            report.write(0);
        }
        byte[] message;
        try (var orders = Files.newInputStream(Path.of("/dev/fd/3"))) {
            message = orders.readAllBytes();
        }
        if (message.length == 0) {
            Runtime.getRuntime().halt(0);
        }
        String[] given = new String(message, StandardCharsets.UTF_8).split("\0", -1);
        return Arrays.copyOfRange(given, 1, given.length - 1);
    }

    private static boolean compile(Classes classes, String name, String text, Writer messages) throws IOException {
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        StandardJavaFileManager standard = compiler.getStandardFileManager(null, null, null);
        try (JavaFileManager files = classes.manager(standard)) {
            return compiler.getTask(messages, files, null, OPTIONS, null, List.of(new Source(name, text))).call();
        }
    }

    private static void run(Classes classes, String stem, String[] args) throws Throwable {
        Thread.currentThread().setContextClassLoader(classes);
        Method main = find(classes, stem);
        if (main == null) {
            System.err.println("error: no class has a main method: public static void main(String[] args)");
            System.exit(1);
        }
        try {
            Object owner = null;
            if (!Modifier.isStatic(main.getModifiers())) {
                Constructor<?> constructor = main.getDeclaringClass().getDeclaredConstructor();
                constructor.setAccessible(true);
                owner = constructor.newInstance();
            }
            main.setAccessible(true);
            if (main.getParameterCount() == 1) {
                main.invoke(owner, (Object) args);
            } else {
                main.invoke(owner);
            }
        } catch (InvocationTargetException error) {
            throw withoutOurs(error.getCause());
        } catch (ExceptionInInitializerError error) {
            throw withoutOurs(error);
        }
    }

    /** The main method: of the class named like the file, else of a public class, else of the first that has one. */
    private static Method find(Classes classes, String stem) throws ClassNotFoundException {
        Method best = null;
        int rank = 0;
        for (String name : classes.names()) {
            Class<?> type = Class.forName(name, false, classes);
            Method main = name.contains("$") ? null : mainOf(type);
            if (main == null) {
                continue;
            }
            int its = name.equals(stem) ? 3 : Modifier.isPublic(type.getModifiers()) ? 2 : 1;
            if (its > rank) {
                best = main;
                rank = its;
            }
        }
        return best;
    }

    private static Method mainOf(Class<?> type) {
        for (Class<?>[] parameters : new Class<?>[][] {{String[].class}, {}}) {
            for (Class<?> owner = type; owner != null; owner = owner.getSuperclass()) {
                try {
                    Method main = owner.getDeclaredMethod("main", parameters);
                    if (main.getReturnType() == void.class && !Modifier.isPrivate(main.getModifiers())) {
                        return main;
                    }
                } catch (NoSuchMethodException none) {
                    continue;
                }
            }
        }
        return null;
    }

    private static Throwable withoutOurs(Throwable error) {
        for (Throwable one = error; one != null; one = one.getCause()) {
            StackTraceElement[] trace = one.getStackTrace();
            int end = trace.length;
            while (end > 0 && isOurs(trace[end - 1].getClassName())) {
                end--;
            }
            one.setStackTrace(Arrays.copyOf(trace, end));
        }
        return error;
    }

    private static boolean isOurs(String name) {
        return name.startsWith("kubecoderun.") || name.startsWith("jdk.internal.reflect.")
                || name.startsWith("java.lang.reflect.") || name.startsWith("com.sun.tools.javac.launcher.");
    }

    /** A program's text. Its public class may be called other than the file. */
    private static final class Source extends SimpleJavaFileObject {
        private final String text;
        private final String name;

        Source(String name, String text) {
            super(URI.create("source:///" + name), Kind.SOURCE);
            this.name = name;
            this.text = text;
        }

        @Override
        public CharSequence getCharContent(boolean ignoreErrors) {
            return text;
        }

        @Override
        public String getName() {
            return name;
        }

        @Override
        public boolean isNameCompatible(String simpleName, Kind kind) {
            return kind == Kind.SOURCE;
        }
    }

    /** The compiled classes, and their loader. */
    private static final class Classes extends ClassLoader {
        private final Map<String, ByteArrayOutputStream> compiled = new LinkedHashMap<>();

        Classes() {
            super(ClassLoader.getSystemClassLoader());
        }

        List<String> names() {
            return new ArrayList<>(compiled.keySet());
        }

        @Override
        protected Class<?> findClass(String name) throws ClassNotFoundException {
            ByteArrayOutputStream bytes = compiled.get(name);
            if (bytes == null) {
                throw new ClassNotFoundException(name);
            }
            return defineClass(name, bytes.toByteArray(), 0, bytes.size());
        }

        JavaFileManager manager(StandardJavaFileManager standard) {
            return new ForwardingJavaFileManager<>(standard) {
                @Override
                public JavaFileObject getJavaFileForOutput(
                        Location location, String name, JavaFileObject.Kind kind, FileObject sibling) {
                    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
                    compiled.put(name, bytes);
                    return new SimpleJavaFileObject(URI.create("class:///" + name.replace('.', '/')), kind) {
                        @Override
                        public OutputStream openOutputStream() {
                            return bytes;
                        }
                    };
                }

                @Override
                public boolean hasLocation(Location location) {
                    return location == StandardLocation.CLASS_OUTPUT || super.hasLocation(location);
                }
            };
        }
    }
}
