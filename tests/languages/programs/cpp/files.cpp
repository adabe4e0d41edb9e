#include <filesystem>
#include <fstream>
#include <iostream>

int main() {
    std::ifstream in("données.txt");
    std::filesystem::create_directory("out");
    std::ofstream out("out/copy.txt");
    out << in.rdbuf() << "more\n";
    std::cout << "written\n";
}
