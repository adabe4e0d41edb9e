#include <iostream>
#include <iterator>
#include <numeric>

int main() {
    std::istream_iterator<long> first(std::cin), last;
    std::cout << std::accumulate(first, last, 0L) << '\n';
}
