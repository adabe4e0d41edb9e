#include <iostream>
#include <algorithm>
#include <map>
#include <string>
#include <vector>

int main() {
    std::vector<std::string> words = {"b", "a", "b"};
    std::map<std::string, int> counts;
    for (const auto &word : words) counts[word]++;
    std::sort(words.begin(), words.end());
    std::cout << words.front() << ' ' << counts["b"] << '\n';
}
