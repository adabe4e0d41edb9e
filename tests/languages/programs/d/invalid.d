import std.stdio;

void main() {
    int number = "text";
    writeln("not reached");
}
