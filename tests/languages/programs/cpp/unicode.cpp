#include <algorithm>
#include <iostream>
#include <string>

int main() {
    const std::string text = "Grüße, 世界 🌍";
    std::cout << text << '\n'
              << std::ranges::count_if(text, [](unsigned char c) { return (c & 0xC0) != 0x80; }) << '\n';
}
