import std.stdio;

int main() {
    writeln("before the end");
    return 7;
}
