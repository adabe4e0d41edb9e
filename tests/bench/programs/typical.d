import std.algorithm, std.array, std.stdio, std.string;

void main() {
    int[string] counts;
    foreach (word; "b a b".split) counts[word]++;
    writefln("%s %d", counts.keys.sort.join(","), counts["b"]);
}
