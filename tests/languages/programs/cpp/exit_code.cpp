#include <iostream>

int main() {
    std::cout << "before the end\n";
    return 7;
}
