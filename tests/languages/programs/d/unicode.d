import std.range, std.stdio;

void main() {
    string text = "Grüße, 世界 🌍";
    writeln(text);
    writeln(text.walkLength);
}
