#include <concepts>
#include <stdexcept>

template <std::integral T>
void fail(T) {
    throw std::runtime_error("went wrong on purpose");
}

int main() {
    fail(1);
}
