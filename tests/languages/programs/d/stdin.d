import std.algorithm, std.conv, std.stdio;

void main() {
    stdin.byLine.map!(line => line.to!int).sum.writeln;
}
