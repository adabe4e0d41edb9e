import std.file, std.stdio;

void main() {
    string text = readText("données.txt");
    mkdir("out");
    std.file.write("out/copy.txt", text ~ "more\n");
    writeln("written");
}
